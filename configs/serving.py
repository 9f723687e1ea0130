"""Schema of a serving configuration: policies, their engines and replicas, and the ports of the one application."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from configs.base import Strict, YamlConfig


class EngineConfig(Strict):
    """Settings of one vLLM engine. `extra` reaches vLLM's AsyncEngineArgs as it is."""

    device: Literal["auto", "cpu", "gpu"] = Field("auto", description="auto: gpu where CUDA is present")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    tensor_parallel_size: int = Field(1, ge=1, description="GPUs that share one copy of the weights")
    pipeline_parallel_size: int = Field(1, ge=1, description="stages a copy of the weights is cut into")
    max_model_len: int = Field(1024, ge=16, description="longest prompt plus answer, tokens")
    max_num_seqs: int = Field(64, ge=1, description="sequences decoded together")
    max_num_batched_tokens: int | None = Field(
        None, ge=16, description="tokens of one engine step; None: at least the longest prompt"
    )
    gpu_memory_utilization: float = Field(0.85, gt=0, le=1)
    cpu_kv_cache_gib: int = Field(1, ge=1, description="size of the KV cache on a CPU, GiB")
    quantization: str | None = Field(None, description="vLLM's name of a quantisation method, e.g. fp8, awq")
    enforce_eager: bool = Field(False, description="no CUDA graphs; always true on a CPU")
    enable_prefix_caching: bool = True
    seed: int = 0
    weight_transfer: Literal["store", "nccl", "ipc"] = Field(
        "store", description="how new weights arrive; nccl and ipc need GPUs; a run sets it from weights.transport"
    )
    extra: dict[str, Any] = Field(default_factory=dict, description="further vLLM engine arguments")

    @property
    def gpus(self) -> int:
        """GPUs of one replica: tensor parallel times pipeline parallel."""
        return self.tensor_parallel_size * self.pipeline_parallel_size


class ReplicaConfig(Strict):
    """How many replicas of a policy, and what one reserves."""

    min_replicas: int = Field(1, ge=0)
    max_replicas: int = Field(1, ge=1)
    target_ongoing_requests: float = Field(48.0, gt=0, description="Serve adds replicas above this load each")
    max_ongoing_requests: int = Field(512, ge=1, description="calls a replica takes at once")
    max_queued_requests: int = Field(2048, ge=-1, description="calls that may wait for a replica; -1: no bound")
    upscale_delay_s: float = Field(10.0, ge=0)
    downscale_delay_s: float = Field(300.0, ge=0)
    num_cpus: float = Field(1.0, ge=0)
    resources: dict[str, float] = Field(default_factory=dict, description="custom Ray resources, e.g. serve_node: 1")
    drain_s: float = Field(20.0, ge=0, description="time a stopping replica gets to finish its calls")
    start_deadline_s: float = Field(600.0, gt=0, description="model load and warm-up")
    health_period_s: float = Field(5.0, gt=0)
    health_timeout_s: float = Field(30.0, gt=0)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max_replicas < max(self.min_replicas, 1):
            raise ValueError(
                f"max_replicas ({self.max_replicas}) is below min_replicas ({self.min_replicas}): raise max_replicas"
            )
        return self


class PolicyConfig(Strict):
    """One policy: a model folder (or Hugging Face name), its engine, its replicas."""

    name: str = Field("policy", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="name in routes and answers")
    model: str = Field(description="folder in Hugging Face format, or a hub name")
    weights_root: str | None = Field(
        None, description="weight store to take versions from (folder or s3:// URI); None: the weights never change"
    )
    engine: EngineConfig = Field(default_factory=EngineConfig)
    replicas: ReplicaConfig = Field(default_factory=ReplicaConfig)
    request_deadline_s: float = Field(120.0, gt=0, description="deadline of a request that names none")
    max_new_tokens: int = Field(1024, ge=1, description="bound on a request's max_tokens")
    warmup: bool = Field(True, description="run a generation with log-probabilities before the replica is ready")


class HttpConfig(Strict):
    host: str = Field("127.0.0.1", description="loopback unless told otherwise")
    port: int = Field(8000, ge=0, le=65535, description="0: a free port is chosen")
    root_path: str = "/"


class ServeConfig(YamlConfig):
    """The one Serve application."""

    name: str = Field("rayward", description="name of the Serve application")
    http: HttpConfig = Field(default_factory=HttpConfig)
    policies: list[PolicyConfig] = Field(min_length=1)
    throughput_switches: bool = Field(
        True, description="Serve's HAProxy ingress, gRPC between replicas, throughput mode (read where Ray starts)"
    )
    ingress_replicas: int = Field(1, ge=1)
    ingress_cpus: float = Field(0.1, ge=0)
    max_body_bytes: int = Field(32 * 1024 * 1024, ge=1024)

    @model_validator(mode="after")
    def _unique_names(self) -> Self:
        names = [policy.name for policy in self.policies]
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            raise ValueError(f"policies must have different names; used twice: {', '.join(doubled)}")
        return self
