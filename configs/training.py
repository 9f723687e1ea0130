"""Schema of a training configuration. A field's description is its manual; units stand in the names.

The sections about what surrounds the learning (weights, replicas, warm start, evaluation, ...) are in `configs.run`,
those of the model in `configs.models`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from configs.base import Strict, YamlConfig
from configs.curricula import CurriculumConfig
from configs.models import ModelConfig
from configs.rewards import RewardConfig
from configs.rollouts import EnvConfig, RolloutConfig, SamplingConfig, SelfPlayConfig
from configs.run import (
    CheckpointConfig,
    EvaluationConfig,
    ServingConfig,
    TrackingConfig,
    WarmstartConfig,
    WeightsConfig,
)


class AlgorithmConfig(Strict):
    """Advantages, loss and corrections. docs/training.md has the formulas."""

    advantage: Literal["group_centered", "group_normalized", "leave_one_out"] = Field(
        "group_normalized", description="How an episode's return is compared with those of its siblings."
    )
    credit: Literal["episode", "turn_to_go", "anchor_state"] = Field(
        "episode",
        description="What is compared: the returns of episodes; for each turn, what it and the later ones were paid, "
        "among the siblings' turns at the same place; or that among all turns of the group that saw the same, added to "
        "the comparison of returns.",
    )
    gamma: float = Field(
        1.0, gt=0, le=1, description="Discount per turn of later rewards, for a `credit` by turns; 1: none."
    )
    loss: Literal["grpo", "dr_grpo", "dapo", "gspo", "cispo"] = Field("dapo", description="The policy loss.")
    clip_low: float | None = Field(
        None, ge=0, description="The ratio is clipped below 1 - clip_low; None: 0.2, and 3e-4 for gspo."
    )
    clip_high: float | None = Field(
        None, ge=0, description="The ratio is clipped above 1 + clip_high; None: 0.28, and 4e-4 for gspo."
    )
    kl_coef: float = Field(
        0.0, ge=0, description="Weight of the KL term against the frozen start policy; 0: no reference model is loaded."
    )
    entropy_coef: float = Field(0.0, ge=0, description="Weight of the entropy bonus; 0: off.")
    off_policy: Literal["none", "tis", "icepop", "sequence_mask"] = Field(
        "none", description="Correction for a sampler whose probabilities differ from the learner's."
    )
    off_policy_high: float = Field(2.0, gt=0, description="Upper bound of the ratio behaviour / sampler.")
    off_policy_low: float = Field(
        0.5, ge=0, description="Lower bound of the ratio behaviour / sampler, for icepop and sequence_mask."
    )
    drop_uniform_groups: bool = Field(
        True, description="Leave out groups whose returns are all equal: they give no gradient."
    )
    updates_per_batch: int = Field(1, ge=1, description="Optimiser steps on each batch.")

    @model_validator(mode="after")
    def _credit_fits(self) -> Self:
        if self.credit == "episode" and self.gamma != 1:
            raise ValueError(
                "algorithm.gamma discounts the rewards of later turns, and algorithm.credit 'episode' has no turns: "
                "set credit to turn_to_go or anchor_state, or gamma to 1"
            )
        if self.credit != "episode" and self.loss == "gspo":
            raise ValueError(
                f"algorithm.loss 'gspo' has one ratio and one advantage for a sequence, and algorithm.credit "
                f"{self.credit!r} one advantage for each of its turns: use another loss, or credit 'episode'"
            )
        return self

    @property
    def clip(self) -> tuple[float, float]:
        """(low, high): the bounds that are set, else the loss's own. A ratio per sequence is much nearer to 1 than
        those of tokens: GSPO's paper (arXiv 2507.18071) clips at 3e-4 and 4e-4."""
        low, high = (3e-4, 4e-4) if self.loss == "gspo" else (0.2, 0.28)
        return low if self.clip_low is None else self.clip_low, high if self.clip_high is None else self.clip_high

    @property
    def mean_per_sequence(self) -> bool:
        """Whether the loss is a mean over sequences, so that one of many sequences must weigh less than an episode."""
        return self.loss in ("grpo", "gspo")


class OptimizerConfig(Strict):
    """AdamW and its learning rate."""

    lr: float = Field(6e-4, gt=0, description="Highest learning rate.")
    beta1: float = Field(0.9, ge=0, lt=1, description="Decay of AdamW's first moment.")
    beta2: float = Field(0.95, ge=0, lt=1, description="Decay of AdamW's second moment.")
    eps: float = Field(1e-8, gt=0, description="AdamW's epsilon, added to the denominator.")
    weight_decay: float = Field(0.0, ge=0, description="Decoupled weight decay.")
    clip_norm: float = Field(1.0, gt=0, description="Gradients are scaled down to this global norm.")
    schedule: Literal["constant", "linear", "cosine"] = Field(
        "constant", description="Course of the learning rate after the warm-up, until the last step."
    )
    warmup_steps: int = Field(5, ge=0, description="Steps over which the learning rate rises to `lr`.")
    final_lr_fraction: float = Field(
        0.1, ge=0, le=1, description="Share of `lr` at which the linear and the cosine schedule end."
    )


class LearnerConfig(Strict):
    """The training processes, and how the model is divided among them."""

    workers: int = Field(1, ge=1, description="Number of training processes (ranks).")
    gpus_per_worker: float = Field(0, ge=0, description="GPUs that each rank reserves; 0: train on the CPU.")
    cpus_per_worker: float = Field(1.0, ge=0, description="Logical CPUs that each rank reserves.")
    torch_threads: int | None = Field(
        None, ge=1, description="Threads per rank; None: the machine's cores, shared by the ranks on it."
    )
    resources: dict[str, float] = Field(
        default_factory=dict, description="Custom Ray resources that each rank reserves, e.g. {train_node: 1}."
    )
    sharding: Literal["none", "ddp", "fsdp2", "deepspeed"] = Field(
        "none",
        description="How the ranks share the model: none (one rank only), whole copies (ddp), or parameters and "
        "optimiser state in parts (fsdp2, deepspeed).",
    )
    deepspeed_stage: Literal[0, 1, 2, 3] = Field(2, description="ZeRO stage, when `sharding` is deepspeed.")
    max_tokens_per_microbatch: int = Field(
        16384, ge=16, description="Tokens of one forward pass, padding included; no sequence may be longer."
    )
    logprob_chunk_tokens: int = Field(
        4096, ge=16, description="Tokens whose logits over the whole vocabulary are in memory at the same time."
    )
    max_nonfinite_steps: int = Field(
        3,
        ge=1,
        description="Updates in a row whose gradient is not finite (each is skipped and counted) after which the run "
        "ends with an error.",
    )
    restarts: int = Field(2, ge=0, description="How often Ray Train may restart the training processes.")

    @model_validator(mode="after")
    def _sharding_fits(self) -> Self:
        if self.workers > 1 and self.sharding == "none":
            raise ValueError(
                f"learner.workers is {self.workers} but learner.sharding is 'none': the processes would drift apart; "
                "use ddp, fsdp2 or deepspeed"
            )
        return self


class TrainConfig(YamlConfig):
    """One training run."""

    name: str = Field("run", description="Beginning of the run's id.")
    experimenter: str = Field("default", description="First folder of the run below runs/.")
    experiment: str = Field("default", description="Second folder of the run below runs/.")
    storage_path: str = Field(".", description="A folder; the run is written to runs/ below it.")
    seed: int = Field(0, description="Seed of the model, the demonstrations and the stream of tasks.")
    steps: int = Field(100, ge=1, description="Training steps; each plays and learns from `groups_per_step` groups.")
    deterministic: bool = Field(False, description="Synchronous and seeded: runs on a CPU repeat bit for bit.")
    on_alarm: Literal["end", "warn"] = Field(
        "end", description="What an alarm of the run's own checks (docs/faults.md) does: it ends the run, or warns."
    )
    check_memory: bool = Field(
        True, description="Refuse to start a run on this machine when its estimated memory is not available."
    )
    model: ModelConfig = Field(default_factory=ModelConfig, description="The policy's model.")
    env: EnvConfig = Field(default_factory=EnvConfig, description="The environment.")
    reward: RewardConfig = Field(default_factory=RewardConfig, description="What an episode is paid for.")
    sampling: SamplingConfig = Field(default_factory=SamplingConfig, description="How answers are drawn.")
    rollout: RolloutConfig = Field(default_factory=RolloutConfig, description="How episodes are played.")
    curriculum: CurriculumConfig | None = Field(
        None, description="Stages that training's situations come from; None: env.kwargs alone."
    )
    self_play: SelfPlayConfig = Field(default_factory=SelfPlayConfig, description="Opponents in self-play.")
    algorithm: AlgorithmConfig = Field(default_factory=AlgorithmConfig, description="Advantages and loss.")
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig, description="AdamW and its schedule.")
    learner: LearnerConfig = Field(default_factory=LearnerConfig, description="The training processes.")
    weights: WeightsConfig = Field(default_factory=WeightsConfig, description="How weights reach the replicas.")
    serving: ServingConfig = Field(default_factory=ServingConfig, description="The replicas that are sampled from.")
    warmstart: WarmstartConfig = Field(default_factory=WarmstartConfig, description="Fine-tuning before GRPO.")
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig, description="Held-out episodes.")
    checkpoint: CheckpointConfig = Field(default_factory=CheckpointConfig, description="What a resume starts from.")
    tracking: TrackingConfig = Field(default_factory=TrackingConfig, description="Where metrics go.")
    cache: Literal["shared", "apart"] = Field(
        "shared",
        description="Where downloaded models and compiled kernels (vLLM, PyTorch, Triton) are kept: shared: in the "
        "machine's own caches; apart: in the run's folder, by processes of a Ray that the command starts.",
    )
    scripts: dict[str, str] = Field(
        default_factory=dict,
        description="Training scripts by name, each as `package.module:function`; `rayward train --script NAME` calls "
        "one with this configuration instead of the built-in loop.",
    )

    @classmethod
    def parse(cls, data: Mapping[str, Any], overrides: Sequence[str] = (), source: str = "config") -> Self:
        """Validates plain data after applying overrides, and takes in `model.overrides`. Raises ConfigError."""
        config = super().parse(data, overrides, source)
        named = any(override.partition("=")[0].strip() == "model.source" for override in overrides)
        found = None if named else config.model.overrides.get(config.env.name)
        if not config.model.overrides:
            return config
        changes: dict[str, Any] = {"overrides": {}, **({"source": found} if found is not None else {})}
        return config.model_copy(update={"model": config.model.model_copy(update=changes)})

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.deterministic and self.rollout.max_policy_lag_steps:
            raise ValueError("deterministic runs are synchronous: set rollout.max_policy_lag_steps to 0")
        if self.sampling.top_p != 1 or self.sampling.top_k or self.sampling.min_p:
            raise ValueError(
                "top_p, top_k and min_p renormalise the sampler's log-probabilities, which the learner does not: "
                "train with top_p 1, top_k 0, min_p 0"
            )
        if self.sampling.temperature == 0:
            raise ValueError("a greedy policy does not explore: set sampling.temperature above 0 for training")
        if self.rollout.max_refills and not self.algorithm.drop_uniform_groups:
            raise ValueError(
                "rollout.max_refills replaces groups without spread, but algorithm.drop_uniform_groups is false, which "
                "trains on them: set one of the two"
            )
        if self.self_play.past_share and self.serving.connect is not None:
            raise ValueError(
                "self_play.past_share needs a replica for past versions, which an application that the run joins "
                "(serving.connect) does not have: set one of the two"
            )
        if self.rollout.group_size < 2:
            raise ValueError("rollout.group_size must be at least 2: an advantage compares siblings")
        longest, budget = self.serving.engine.max_model_len, self.learner.max_tokens_per_microbatch
        if self.serving.connect is None and budget < longest:
            raise ValueError(
                f"learner.max_tokens_per_microbatch ({budget}) is below serving.engine.max_model_len ({longest}): the "
                "first episode that fills its context could not be trained on; raise the one or lower the other"
            )
        if self.weights.transport != "store" and not self.learner.gpus_per_worker:
            raise ValueError(
                f"weights.transport {self.weights.transport!r} moves weights between GPUs, but learner.gpus_per_worker "
                "is 0: use 'store', or give the learner a GPU"
            )
        return self
