"""Schema of a policy: a model, the engine that runs it, and its replicas."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from configs.acting import ActConfig
from configs.base import Strict


def _kind(policy: Any) -> str | None:
    """The policy's `kind`, which may be left out for vllm; None for what is no policy."""
    if isinstance(policy, dict):
        return str(policy.get("kind", "vllm"))
    return getattr(policy, "kind", None)


class EngineConfig(Strict):
    """Settings of the vLLM engine in each replica."""

    device: Literal["auto", "cpu", "gpu"] = Field(
        "auto", description="Where the engine runs; auto: on a GPU if the machine has one."
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="Type of the weights and of the computation; auto: the model's own, on a CPU float32."
    )
    tensor_parallel_size: int = Field(1, ge=1, description="GPUs that share each layer of one copy of the weights.")
    pipeline_parallel_size: int = Field(
        1, ge=1, description="Stages of layers into which one copy of the weights is cut."
    )
    max_model_len: int = Field(1024, ge=16, description="Longest prompt plus answer, in tokens.")
    max_num_seqs: int = Field(64, ge=1, description="Sequences that are decoded at the same time.")
    max_num_batched_tokens: int | None = Field(
        None,
        ge=16,
        description="Tokens of one engine step; None: on a CPU 4096 or `max_model_len`, whichever is more, on a GPU "
        "vLLM's default.",
    )
    gpu_memory_utilization: float = Field(
        0.85, gt=0, le=1, description="Share of a GPU's memory that the engine takes for weights and KV cache."
    )
    gpu_share: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Share of its GPU that a replica reserves; the learner can have the rest "
        "(learner.gpus_per_worker). Below 1 a replica has one GPU, and gpu_memory_utilization is at most so much.",
    )
    cpu_kv_cache_gib: float = Field(1.0, gt=0, description="Size of the KV cache on a CPU, in GiB.")
    quantization: str | None = Field(
        None, description="Quantisation method by vLLM's name, e.g. fp8 or awq; None: as the model says."
    )
    enforce_eager: bool = Field(False, description="Run without CUDA graphs; always so on a CPU.")
    enable_prefix_caching: bool = Field(True, description="Keep the keys and values of prompts that may come again.")
    seed: int = Field(
        0,
        description="Seed of the noise of requests without a seed; every start of a replica mixes in something new.",
    )
    weight_transfer: Literal["store", "nccl", "ipc"] = Field(
        "store", description="How new weights arrive; nccl and ipc need GPUs. A run sets it from weights.transport."
    )
    tool_call_parser: str | None = Field(
        "hermes", description="Parser of tool calls in chat answers by vLLM's name; None: tools are refused."
    )
    max_images: int = Field(
        8, ge=0, description="Most images of one prompt, where the model takes images; history included."
    )
    image_cache_gib: float = Field(
        0.25,
        ge=0,
        description="Memory for images that are processed already, in GiB, found again by their content; 0: none.",
    )
    extra: dict[str, Any] = Field(
        default_factory=dict, description="Further arguments of vLLM's AsyncEngineArgs, as they are."
    )

    @property
    def gpus(self) -> int:
        """GPUs that one replica computes on: tensor parallel times pipeline parallel."""
        return self.tensor_parallel_size * self.pipeline_parallel_size

    @property
    def reserved_gpus(self) -> float:
        """GPUs that one replica reserves."""
        return self.gpus * self.gpu_share

    @model_validator(mode="after")
    def _share_fits(self) -> Self:
        if self.gpu_share == 1:
            return self
        if self.gpus > 1:
            raise ValueError(f"gpu_share {self.gpu_share:g} is of one GPU, and the engine has {self.gpus}: set it to 1")
        if self.gpu_memory_utilization > self.gpu_share:
            raise ValueError(
                f"gpu_memory_utilization ({self.gpu_memory_utilization:g}) is above gpu_share ({self.gpu_share:g}): "
                "the engine would take memory of whoever has the rest of the GPU; lower it"
            )
        return self


class ReplicaConfig(Strict):
    """How many replicas of a policy, and what each of them reserves."""

    min_replicas: int = Field(1, ge=0, description="Fewest replicas; 0: none while nobody asks.")
    max_replicas: int = Field(1, ge=1, description="Most replicas.")
    target_ongoing_requests: float = Field(
        48.0, gt=0, description="Calls per replica at which Serve keeps the number of replicas as it is."
    )
    max_ongoing_requests: int = Field(512, ge=1, description="Calls that a replica takes at the same time.")
    max_queued_requests: int = Field(2048, ge=-1, description="Calls that may wait for a replica; -1: no bound.")
    upscale_delay_s: float = Field(
        10.0, ge=0, description="Seconds that the load must stay high before replicas are added."
    )
    downscale_delay_s: float = Field(
        300.0, ge=0, description="Seconds that the load must stay low before replicas are removed."
    )
    num_cpus: float = Field(1.0, ge=0, description="Logical CPUs that each replica reserves.")
    resources: dict[str, float] = Field(
        default_factory=dict, description="Custom Ray resources that each replica reserves, e.g. {serve_node: 1}."
    )
    drain_s: float = Field(20.0, ge=0, description="Seconds that a stopping replica has to finish its calls.")
    start_deadline_s: float = Field(600.0, gt=0, description="Seconds for loading the model and warming up.")
    health_period_s: float = Field(5.0, gt=0, description="Seconds between two health checks of a replica.")
    health_timeout_s: float = Field(
        30.0, gt=0, description="Seconds without an answer to a health check after which a replica is replaced."
    )
    no_progress_s: float = Field(
        120.0,
        gt=0,
        description="Seconds without progress of the oldest request, or without an answer of the engine's process, "
        "after which a replica is replaced; above the longest step of the engine.",
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max_replicas < max(self.min_replicas, 1):
            raise ValueError(
                f"max_replicas ({self.max_replicas}) is below min_replicas ({self.min_replicas}): raise max_replicas"
            )
        return self


class BasePolicy(Strict):
    """What policies of every kind have."""

    name: str = Field("policy", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="Name in routes and answers.")
    weights_root: str | None = Field(
        None,
        description="Weight store from which versions are taken (a folder or an s3:// URI); None: the weights never "
        "change.",
    )
    follow: bool = Field(
        False, description="Take up each version that appears in weights_root, without a request that asks for it."
    )
    follow_period_s: float = Field(
        1.0, gt=0, description="Seconds between two looks into a weights_root that is followed."
    )
    replicas: ReplicaConfig = Field(default_factory=ReplicaConfig, description="How many replicas, and their limits.")
    request_deadline_s: float = Field(120.0, gt=0, description="Deadline of a request that names none, in seconds.")
    warmup: bool = Field(True, description="Answer once before a replica counts as ready: the first answer is slow.")
    act: ActConfig = Field(default_factory=ActConfig, description="How the policy acts.")

    @property
    def acts(self) -> bool:
        """Whether it answers a robot's observation."""
        return self.act.arm is not None

    @property
    def plays(self) -> bool:
        """Whether it answers a MineRL player's observation."""
        return self.act.game is not None

    @model_validator(mode="after")
    def _followable(self) -> Self:
        if self.follow and self.weights_root is None:
            raise ValueError("follow needs a weights_root to be followed: set weights_root")
        return self


class PolicyConfig(BasePolicy):
    """A language or vision-language policy on vLLM."""

    kind: Literal["vllm"] = Field("vllm", description="The engine: vllm, for language and vision-language models.")
    model: str = Field(
        description="A folder in Hugging Face format, or a name on the hub; tiny:text and tiny:vision are small models "
        "with random weights, made on the spot."
    )
    engine: EngineConfig = Field(default_factory=EngineConfig, description="The vLLM engine of each replica.")
    max_new_tokens: int = Field(1024, ge=1, description="Most tokens that a request may ask for (`max_tokens`).")

    @property
    def context_tokens(self) -> int:
        """Prompt and answer together."""
        return self.engine.max_model_len

    @model_validator(mode="after")
    def _images_fit(self) -> Self:
        if self.act.speaks and self.act.max_images > self.engine.max_images:
            raise ValueError(
                f"act.max_images ({self.act.max_images}) is above engine.max_images ({self.engine.max_images}): "
                "the engine would refuse a session whose history has grown. Lower the first or raise the second"
            )
        return self


class RuntimeEnvConfig(Strict):
    """Where the replicas of a policy find their packages, where these cannot live beside the server's own."""

    pip: list[str] = Field(
        default_factory=list,
        description="Packages that Ray installs for the replicas alone, on top of a copy of the server's environment, "
        "e.g. [lerobot==0.4.4].",
    )
    py_executable: str | None = Field(
        None,
        description="Interpreter of an environment that holds them already, on every node that runs replicas. It needs "
        "the server's versions of Python, Ray and rayward, and xxhash.",
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if self.pip and self.py_executable:
            raise ValueError("pip installs into an environment that Ray makes: set pip or py_executable, not both")
        return self


class ChunkPolicy(BasePolicy):
    """A robot policy that answers an observation with a chunk of actions."""

    kind: Literal["chunks"] = Field("chunks", description="The engine: chunks, for robot policies.")
    checkpoint: str = Field(
        description="Folder with train_config.json and model.safetensors, as `python -m training.bc` writes it, or one "
        "of a LeRobot policy; tiny:robot is a small one with random weights, made on the spot."
    )
    runtime_env: RuntimeEnvConfig = Field(
        default_factory=RuntimeEnvConfig, description="Environment of the replicas, where it is another one."
    )
    device: Literal["auto", "cpu", "gpu"] = Field("auto", description="Where the model runs; auto: on a GPU if any.")
    dtype: Literal["float32", "bfloat16"] = Field("float32", description="Type of the weights and of the computation.")
    max_batch: int = Field(16, ge=1, description="Observations that are answered in one forward pass.")
    batch_window_ms: float = Field(
        2.0,
        ge=0,
        description="Milliseconds that a forward pass waits for the clients that asked during the one before; a client "
        "that is alone never waits.",
    )
    flow_steps: int = Field(10, ge=1, description="Integration steps from noise to actions.")
    compile: bool = Field(
        False,
        description="Compile the model with torch.compile: faster, slower to start; an answer's last bits then depend "
        "on what else is in its pass.",
    )
    repeat_window_s: float = Field(
        60.0, gt=0, description="Seconds for which a request that is sent again under its id has the same answer."
    )

    @property
    def acts(self) -> bool:
        return True


class ProviderPolicy(BasePolicy):
    """A vision-language policy behind an API, reached through litellm."""

    kind: Literal["provider"] = Field("provider", description="The engine: provider, for models behind an API.")
    model: str = Field(description="Model by litellm's name, e.g. openai/gpt-4o; VLM_MODEL in the environment wins.")
    api_base: str | None = Field(None, description="Address of the API where it is not the provider's own.")
    rate_limits: Path | None = Field(None, description="File rate_limits.yaml; its limits hold over all replicas.")
    concurrency: int = Field(32, ge=1, description="Calls of one replica at a time; CONCURRENCY_LIMIT wins.")
    timeout_s: float = Field(60.0, gt=0, description="Longest call of the API, in seconds; TIMEOUT wins.")
    retries: int = Field(2, ge=0, description="Further tries of a call that failed for a passing reason.")
    max_new_tokens: int = Field(
        4096,
        ge=1,
        description="Most tokens that a request of OpenAI's chat route may ask for, all answers together; also what "
        "is asked for where it names no bound.",
    )
    structured: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Ask the API to hold answers to a JSON schema; auto: where litellm says that the model can, and "
        "for any server at `api_base`.",
    )
    image_cache_gib: float = Field(
        0.125,
        ge=0,
        description="Memory of a replica for images that are encoded already, in GiB, found again by their content; "
        "0: none.",
    )

    @property
    def context_tokens(self) -> int:
        """Prompt and answer together; the provider knows its own, so nothing is left out for the prompt."""
        return 2 * self.max_new_tokens


AnyPolicy = Annotated[
    Annotated[PolicyConfig, Tag("vllm")]
    | Annotated[ChunkPolicy, Tag("chunks")]
    | Annotated[ProviderPolicy, Tag("provider")],
    Discriminator(_kind),
]
