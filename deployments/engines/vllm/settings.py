"""Our engine settings in vLLM's terms: arguments of the engine and environment of its process."""

from __future__ import annotations

import hashlib
import os
from typing import Any

from configs.policies import ChunkPolicy
from configs.replicas import EngineConfig

TRANSFER_BACKENDS = {"store": "rayward_store", "nccl": "rayward_nccl", "ipc": "rayward_ipc"}


# The engine's own process runs the model. With vLLM's choice on CPUs, a worker process, the engine spins on a core
# while it waits for each step; vLLM wants it to bind OpenMP threads to cores, which our replicas do not do.
CPU_EXECUTOR = "vllm.v1.executor.uniproc_executor.UniProcExecutor"


def on_gpu(config: EngineConfig | ChunkPolicy) -> bool:
    """Where an engine runs; `auto`: on a GPU if this machine has one."""
    if config.device != "auto":
        return config.device == "gpu"
    import torch

    return torch.cuda.is_available()


def process_environment(config: EngineConfig) -> dict[str, str]:
    """Variables that must stand in the environment of a replica's process before vLLM is imported."""
    variables = {"VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": os.environ.get("VLLM_LOGGING_LEVEL", "WARNING")}
    if not on_gpu(config):
        variables |= {
            # "auto" pins every engine of a machine to the same first core
            "VLLM_CPU_OMP_THREADS_BIND": os.environ.get("VLLM_CPU_OMP_THREADS_BIND", "nobind"),
        }
    return variables


def noise_seed(seed: int, engine: str) -> int:
    """The seed of one engine's own noise, which decides the answers to requests without a seed. `engine`: a name that
    no other engine has, be it of another replica or of the same one before a restart: with equal seeds they would draw
    the same noise for different episodes. Below 2**32, as numpy wants it."""
    return int.from_bytes(hashlib.blake2b(f"{seed}/{engine}".encode(), digest_size=4).digest(), "big")


def engine_arguments(config: EngineConfig, model: str, weight_updates: bool) -> dict[str, Any]:
    """EngineConfig as vLLM's AsyncEngineArgs."""
    on_cpu = not on_gpu(config)
    arguments: dict[str, Any] = {
        "model": model,
        "dtype": config.dtype if config.dtype != "auto" or not on_cpu else "float32",
        "tensor_parallel_size": config.tensor_parallel_size,
        "pipeline_parallel_size": config.pipeline_parallel_size,
        "max_model_len": config.max_model_len,
        "max_num_seqs": config.max_num_seqs,
        "quantization": config.quantization,
        "enforce_eager": config.enforce_eager or on_cpu,
        "enable_prefix_caching": config.enable_prefix_caching,
        "seed": config.seed,
        "logprobs_mode": "processed_logprobs",  # of the distribution that was sampled from: temperature included
        "disable_log_stats": True,
        "generation_config": "vllm",  # no sampling defaults from the model's folder
        "limit_mm_per_prompt": {"image": config.max_images, "video": 0},
        "mm_processor_cache_gb": config.image_cache_gib,
    }
    if config.max_num_batched_tokens is not None:
        arguments["max_num_batched_tokens"] = config.max_num_batched_tokens
    if on_cpu:
        # A seeded request whose prompt is prefilled in chunks kills the CPU engine: whole prompts only.
        arguments["enable_chunked_prefill"] = False
        arguments.setdefault("max_num_batched_tokens", max(4096, config.max_model_len))
        arguments["kv_cache_memory_bytes"] = int(config.cpu_kv_cache_gib * 1024**3)
        if config.gpus == 1:
            arguments["distributed_executor_backend"] = CPU_EXECUTOR
    else:
        arguments["gpu_memory_utilization"] = config.gpu_memory_utilization
    if weight_updates:
        arguments["weight_transfer_config"] = {"backend": TRANSFER_BACKENDS[config.weight_transfer]}
    return arguments | config.extra
