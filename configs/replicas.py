"""Schema of a replica: the vLLM engine in it, how many replicas there are, and what each reserves."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from configs.base import Strict


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
