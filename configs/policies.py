"""Schema of a policy: a model, and the replicas that run it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from configs.acting import ActConfig
from configs.base import Strict
from configs.replicas import EngineConfig, ReplicaConfig


def _kind(policy: Any) -> str | None:
    """The policy's `kind`, which may be left out for vllm; None for what is no policy."""
    if isinstance(policy, dict):
        return str(policy.get("kind", "vllm"))
    return getattr(policy, "kind", None)


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
