"""Schema of the rollouts: the environment, how answers are drawn, how many episodes are played, and against whom."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from configs.base import Strict


class EnvConfig(Strict):
    """The environment, and how its texts become prompts."""

    name: str = Field(
        "tictactoe",
        description="A registered name, `gym:CartPole-v1` (or of another library), or `package.module:Class`.",
    )
    kwargs: dict[str, Any] = Field(default_factory=dict, description="Settings of the environment, for training.")
    eval_kwargs: dict[str, Any] | None = Field(
        None,
        description="Laid over `kwargs` for evaluation. None: {split: heldout} where the environment has that setting.",
    )
    scripted_kwargs: dict[str, Any] = Field(
        default_factory=dict,
        description="Laid over `kwargs` where a script plays: demonstrations, and the texts of a tiny model's "
        "tokenizer. E.g. {opponent: random} where training plays against the policy itself.",
    )
    history: Literal["none", "full", "scratchpad", "optimal_scratchpad"] = Field(
        "none",
        description="What of the earlier turns a prompt holds: nothing, everything, the policy's own notes, or notes "
        "that the environment writes.",
    )
    system_prompt: str | None = Field(None, description="None: the environment's own; an empty text: no system prompt.")
    max_turns: int = Field(64, ge=1, description="Turns after which an episode ends as truncated.")
    cut_short: Literal["failed", "as_played"] = Field(
        "failed",
        description="The return of an episode that `max_turns` or the context ends: that of a lost one at most, where "
        "the environment says what losing costs (else filling the context pays more than losing), or what it had.",
    )
    step_timeout_s: float = Field(
        30.0, gt=0, description="Seconds after which a call of the environment counts as hung."
    )
    isolation: Literal["none", "thread", "process"] | None = Field(
        None,
        description="Where an episode's environment plays: in the event loop of its worker, in a thread of its own, or "
        "in a process of its own, which is killed when a call hangs. None: as the environment's class says.",
    )
    processes: int = Field(
        16, ge=1, description="With processes: how many a worker has. So many of its episodes play at the same time."
    )
    python: str | None = Field(
        None,
        description="Interpreter of these processes: /path/to/venv/bin/python, with numpy and what the environment "
        "needs. None: rayward's own.",
    )

    packages: list[str] = Field(
        default_factory=list,
        description="What the environment needs, e.g. [textarena==0.7.4]: lines of pip's requirements. Installed on "
        "first use into a virtual environment of their own, on each machine that plays; its interpreter runs these "
        "processes.",
    )
    install_timeout_s: float = Field(900.0, gt=0, description="Seconds that the installation of `packages` may take.")

    @model_validator(mode="after")
    def _python_has_a_process(self) -> Self:
        if self.python is not None and self.packages:
            raise ValueError(
                "env.packages are installed for an interpreter of their own, and env.python names another one: leave "
                "one of the two out"
            )
        if self.elsewhere and self.isolation in ("none", "thread"):
            name = "env.packages" if self.packages else "env.python"
            raise ValueError(
                f"{name} runs environments in processes of another interpreter, and env.isolation is "
                f"{self.isolation!r}: set it to process, or leave one of the two out"
            )
        return self

    @property
    def elsewhere(self) -> bool:
        """Whether another interpreter plays the environment."""
        return self.python is not None or bool(self.packages)

    @property
    def scripted(self) -> dict[str, Any]:
        """Settings of the environment where a script plays."""
        return {**self.kwargs, **self.scripted_kwargs}


class SamplingConfig(Strict):
    """How the policy's answers are drawn in rollouts."""

    temperature: float = Field(1.0, ge=0, description="Logits are divided by it; training needs more than 0.")
    max_tokens: int = Field(8, ge=1, description="Longest answer of one turn, in tokens.")
    top_p: float = Field(1.0, gt=0, le=1, description="Nucleus sampling; 1: off, which training requires.")
    top_k: int = Field(0, ge=0, description="Sample from the k likeliest tokens; 0: off, which training requires.")
    min_p: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Leave out tokens below this share of the likeliest one's probability; 0: off, which training "
        "requires.",
    )


class RolloutConfig(Strict):
    """How many episodes are played, where, and for how long they are tried."""

    workers: int = Field(1, ge=1, description="Ray actors that play environments.")
    worker_cpus: float = Field(0.25, ge=0, description="Logical CPUs that each rollout worker reserves.")
    groups_per_step: int = Field(24, ge=1, description="Groups that each training step consumes.")
    group_size: int = Field(8, ge=1, description="Episodes per group; they share one environment seed. At least 2.")
    max_concurrent_episodes: int = Field(256, ge=1, description="Episodes that a worker plays at the same time.")
    request_deadline_s: float = Field(60.0, gt=0, description="Seconds that the policy has for one answer.")
    episode_deadline_s: float = Field(300.0, gt=0, description="Seconds that a whole episode may take.")
    max_refills: int = Field(
        0,
        ge=0,
        description="How often a group whose returns are all equal is replaced by a group of another task, so that the "
        "batch stays full (dynamic sampling); 0: off.",
    )
    max_retries: int = Field(
        8, ge=0, description="Further tries for an episode or a group after an infrastructure failure."
    )
    retry_backoff_s: float = Field(
        0.5, ge=0, description="Pause before the first retry, in seconds; it doubles with each one, up to 10 s."
    )
    max_policy_lag_steps: int = Field(
        0, ge=0, description="How many steps older than the learner's weights a group may be; 0: synchronous training."
    )
    batch_window_s: float = Field(
        0.002, ge=0, description="Requests that arrive within so many seconds share one call to a replica."
    )
    max_batch: int = Field(96, ge=1, description="Most requests in one call to a replica.")


class SelfPlayConfig(Strict):
    """Who plays the other side of a game that asks a policy for it (`env.kwargs: {opponent: policy}`)."""

    past_share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Share of the groups that play against an earlier version of the policy, on a replica of its own; "
        "the others play against its newest weights.",
    )
    every_steps: int = Field(
        10, ge=1, description="Steps between two versions that are kept; as often another one becomes the opponent."
    )
    keep: int = Field(8, ge=1, description="How many versions to draw the opponent from, the newest ones.")
