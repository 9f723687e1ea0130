"""What an episode is played with: the settings of a step, the policy, and where the environment runs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Literal

from configs.rewards import RewardConfig
from configs.rollouts import EnvConfig, RolloutConfig
from configs.training import TrainConfig
from deployments.protocol.generate import Generate, Sampling
from envs.base import Env
from envs.registry import evaluation_settings
from training.environments.calls import Hooks
from training.environments.processes import EnvProcesses
from training.rendering.renderer import ChatRenderer
from training.rollouts.judge import Judge


@dataclass(frozen=True)
class PlaySettings:
    """How episodes are played; the same for all episodes of a step."""

    env: EnvConfig
    rollout: RolloutConfig
    sampling: Sampling
    max_model_len: int
    seed: int = 0
    seeded: bool = False  # every request carries a seed: bit-for-bit repeatable
    min_weight_version: int = 0
    evaluation: bool = False
    on_alarm: Literal["end", "warn"] = "end"
    reward: RewardConfig = field(default_factory=RewardConfig)

    @classmethod
    def for_training(cls, config: TrainConfig, min_weight_version: int = 0) -> PlaySettings:
        sampling = Sampling(temperature=config.sampling.temperature, max_tokens=config.sampling.max_tokens)
        return cls(
            env=config.env,
            rollout=config.rollout,
            sampling=sampling,
            max_model_len=config.serving.engine.max_model_len,
            seed=config.seed,
            seeded=config.deterministic,
            min_weight_version=min_weight_version,
            on_alarm=config.on_alarm,
            reward=config.reward,
        )

    @classmethod
    def for_evaluation(cls, config: TrainConfig, min_weight_version: int = 0) -> PlaySettings:
        """Held-out situations, the evaluation's temperature, every request seeded: an evaluation repeats exactly."""
        settings = evaluation_settings(config.env.name, config.env.kwargs, config.env.eval_kwargs)
        env = config.env.model_copy(update={"kwargs": settings})
        training = cls.for_training(config, min_weight_version)
        sampling = replace(training.sampling, temperature=config.evaluation.temperature)
        return replace(training, env=env, sampling=sampling, seeded=True, evaluation=True)


@dataclass(frozen=True)
class Past:
    """A past version of the policy, which plays the other side of a game: how to ask it, and the lowest version in the
    store of past versions that may answer."""

    generate: Generate
    min_weight_version: int


@dataclass(frozen=True)
class Player:
    """All that one episode needs; holds no state of its own."""

    make_env: Callable[[], Env]
    generate: Generate
    renderer: ChatRenderer
    settings: PlaySettings
    hooks: Hooks = field(default_factory=Hooks)
    blocking: bool = False  # the environment's calls run in a thread (Env.blocking)
    processes: EnvProcesses | None = None  # where the environment plays, in place of `make_env`; None: here
    judge: Judge | None = None  # scores finished episodes, where the run has one
    room: AbstractAsyncContextManager[object] = field(default_factory=nullcontext)  # entered by each episode that plays
    past: Past | None = None  # who plays the other side of a game for two; None: the policy itself
