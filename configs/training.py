"""Schema of a training configuration. A field's description is its manual; units stand in the names."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from configs.base import Strict, YamlConfig
from configs.serving import EngineConfig, ReplicaConfig


class TinyModel(Strict):
    """A small random Qwen2 with its own tokenizer, built on the spot (no download)."""

    hidden_size: int = Field(128, ge=16)
    layers: int = Field(2, ge=1)
    heads: int = Field(4, ge=1)
    kv_heads: int = Field(2, ge=1)
    intermediate_size: int = Field(256, ge=16)
    initializer_range: float = Field(0.06, gt=0, description="0.02 learned far worse in a model of this size")
    vocab_size: int = Field(512, ge=280, description="upper bound of the BPE vocabulary (256 bytes, then words)")
    max_positions: int = Field(2048, ge=64)

    @model_validator(mode="after")
    def _servable(self) -> Self:
        if self.hidden_size % (32 * self.heads):
            raise ValueError(
                f"hidden_size {self.hidden_size} over {self.heads} heads: vLLM's CPU attention needs a head size "
                "that is a multiple of 32"
            )
        return self


class ModelConfig(Strict):
    """Where the policy comes from, and how the learner holds it."""

    source: str = Field("tiny", description='"tiny", a folder in Hugging Face format, or a hub name')
    tiny: TinyModel = Field(default_factory=TinyModel)
    dtype: Literal["float32", "bfloat16"] = Field("float32", description="compute type of the learner")
    attn_implementation: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    gradient_checkpointing: bool = False


class EnvConfig(Strict):
    name: str = "tictactoe"
    kwargs: dict[str, Any] = Field(default_factory=dict, description="settings of the environment")
    eval_kwargs: dict[str, Any] = Field(
        default_factory=lambda: {"split": "heldout"}, description="laid over kwargs for evaluation"
    )
    history: Literal["none", "full", "scratchpad", "optimal_scratchpad"] = "none"
    system_prompt: str | None = Field(None, description="None: the environment's own; an empty text: none")
    max_turns: int = Field(64, ge=1, description="more turns end the episode as truncated")
    step_timeout_s: float = Field(30.0, gt=0, description="an environment that takes longer counts as hung")


class SamplingConfig(Strict):
    temperature: float = Field(1.0, ge=0)
    max_tokens: int = Field(8, ge=1, description="tokens of one answer")
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=0, description="0: off")
    min_p: float = Field(0.0, ge=0, lt=1)


class RolloutConfig(Strict):
    workers: int = Field(1, ge=1, description="Ray actors that play environments")
    worker_cpus: float = Field(0.25, ge=0)
    groups_per_step: int = Field(24, ge=1)
    group_size: int = Field(8, ge=1, description="episodes that share one environment seed")
    max_concurrent_episodes: int = Field(256, ge=1, description="per worker")
    request_deadline_s: float = Field(60.0, gt=0)
    episode_deadline_s: float = Field(300.0, gt=0)
    max_retries: int = Field(8, ge=0, description="tries again after an infrastructure failure of one episode")
    retry_backoff_s: float = Field(0.5, ge=0)
    max_policy_lag_steps: int = Field(0, ge=0, description="0: synchronous")
    batch_window_s: float = Field(0.002, ge=0, description="requests that arrive within it share one call")
    max_batch: int = Field(96, ge=1, description="requests of one call")


class AlgorithmConfig(Strict):
    advantage: Literal["group_centered", "group_normalized", "leave_one_out"] = "group_normalized"
    loss: Literal["grpo", "dr_grpo", "dapo", "gspo", "cispo"] = "dapo"
    clip_low: float = Field(0.2, ge=0)
    clip_high: float = Field(0.28, ge=0)
    kl_coef: float = Field(0.0, ge=0, description="weight of the KL term against the frozen start policy")
    entropy_coef: float = Field(0.0, ge=0)
    off_policy: Literal["none", "tis", "icepop", "sequence_mask"] = "none"
    off_policy_high: float = Field(2.0, gt=0, description="upper bound of the ratio learner / sampler")
    off_policy_low: float = Field(0.5, ge=0, description="lower bound (icepop, sequence_mask)")
    drop_uniform_groups: bool = Field(True, description="groups without spread give no gradient: leave them out")
    updates_per_batch: int = Field(1, ge=1)


class OptimizerConfig(Strict):
    lr: float = Field(6e-4, gt=0)
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.95, ge=0, lt=1)
    eps: float = Field(1e-8, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    clip_norm: float = Field(1.0, gt=0)
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup_steps: int = Field(5, ge=0)
    final_lr_fraction: float = Field(0.1, ge=0, le=1)


class LearnerConfig(Strict):
    workers: int = Field(1, ge=1, description="training processes")
    gpus_per_worker: float = Field(0, ge=0)
    cpus_per_worker: float = Field(1.0, ge=0)
    torch_threads: int | None = Field(None, ge=1, description="None: the machine's cores, shared by the ranks on it")
    resources: dict[str, float] = Field(default_factory=dict)
    sharding: Literal["none", "ddp", "fsdp2", "deepspeed"] = "none"
    deepspeed_stage: Literal[0, 1, 2, 3] = 2
    max_tokens_per_microbatch: int = Field(16384, ge=16, description="padded tokens of one forward pass")
    logprob_chunk_tokens: int = Field(4096, ge=16, description="tokens whose logits are held at once")
    restarts: int = Field(2, ge=0, description="times Ray Train may restart the worker group")

    @model_validator(mode="after")
    def _sharding_fits(self) -> Self:
        if self.workers > 1 and self.sharding == "none":
            raise ValueError(
                f"learner.workers is {self.workers} but learner.sharding is 'none': the processes would drift apart; "
                "use ddp, fsdp2 or deepspeed"
            )
        return self


class WeightsConfig(Strict):
    transport: Literal["store", "nccl", "ipc"] = Field(
        "store",
        description="how replicas get a version: pulled from the store; or pushed by NCCL, or by CUDA IPC when they "
        "share the learner's GPUs, with the store for those that missed the push",
    )
    root: str | None = Field(None, description="weight store; None: shared memory of the machine, or the run folder")
    keep: int = Field(4, ge=2, description="versions that stay in the store")


class ServingConfig(Strict):
    """The policy replicas that this run samples from."""

    connect: str | None = Field(None, description="name of a running Serve application; None: start one")
    policy: str = "policy"
    engine: EngineConfig = Field(default_factory=EngineConfig)
    replicas: ReplicaConfig = Field(default_factory=ReplicaConfig)
    http_port: int = Field(0, ge=0, le=65535, description="0: a free port")


class WarmstartConfig(Strict):
    """Supervised fine-tuning on scripted demonstrations, before GRPO."""

    enabled: bool = False
    episodes: int = Field(2000, ge=1)
    noise: float = Field(0.3, ge=0, le=1, description="share of random actions of the demonstrator")
    illegal_noise: float = Field(0.0, ge=0, le=1, description="share of possibly illegal actions (where it applies)")
    steps: int = Field(300, ge=1)
    batch_size: int = Field(64, ge=1, description="sequences of one optimiser step")
    lr: float = Field(3e-3, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    warmup_steps: int = Field(20, ge=0)


class EvaluationConfig(Strict):
    episodes: int = Field(400, ge=1)
    every_steps: int = Field(0, ge=0, description="between steps, into metrics.jsonl; 0: only at the end")
    first_seed: int = Field(1_000_000, ge=0)
    temperature: float = Field(1.0, ge=0)


class CheckpointConfig(Strict):
    every_steps: int = Field(50, ge=0, description="0: only at the end")
    keep: int = Field(2, ge=1)


class TrackingConfig(Strict):
    console: bool = True
    wandb: Literal["off", "offline", "online"] = "off"
    wandb_project: str = "rayward"
    prometheus: bool = True
    stalled_after_s: float = Field(60.0, gt=0, description="without a step for so long, say who waits for what")
    episodes_every_steps: int = Field(0, ge=0, description="write the episodes of every n-th step to Parquet; 0: never")


class TrainConfig(YamlConfig):
    """One training run."""

    name: str = "run"
    experimenter: str = "default"
    experiment: str = "default"
    storage_path: str = Field(".", description="a folder; runs are written to runs/ below it")
    seed: int = 0
    steps: int = Field(100, ge=1)
    deterministic: bool = Field(False, description="synchronous, every request seeded: runs repeat bit for bit")
    model: ModelConfig = Field(default_factory=ModelConfig)
    env: EnvConfig = Field(default_factory=EnvConfig)
    sampling: SamplingConfig = Field(default_factory=SamplingConfig)
    rollout: RolloutConfig = Field(default_factory=RolloutConfig)
    algorithm: AlgorithmConfig = Field(default_factory=AlgorithmConfig)
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig)
    learner: LearnerConfig = Field(default_factory=LearnerConfig)
    weights: WeightsConfig = Field(default_factory=WeightsConfig)
    serving: ServingConfig = Field(default_factory=ServingConfig)
    warmstart: WarmstartConfig = Field(default_factory=WarmstartConfig)
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig)
    checkpoint: CheckpointConfig = Field(default_factory=CheckpointConfig)
    tracking: TrackingConfig = Field(default_factory=TrackingConfig)

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
        if self.rollout.group_size < 2:
            raise ValueError("rollout.group_size must be at least 2: an advantage compares siblings")
        if self.weights.transport != "store" and not self.learner.gpus_per_worker:
            raise ValueError(
                f"weights.transport {self.weights.transport!r} moves weights between GPUs, but learner.gpus_per_worker "
                "is 0: use 'store', or give the learner a GPU"
            )
        return self
