"""EngineConfig as vLLM takes it."""

from __future__ import annotations

from configs.replicas import EngineConfig
from deployments.engines.vllm.settings import engine_arguments, process_environment


def test_the_cache_on_a_cpu_may_be_smaller_than_a_gibibyte() -> None:
    """vLLM's own variable takes whole GiB: a tiny model reserved forty times what it could use."""
    config = EngineConfig(device="cpu", cpu_kv_cache_gib=0.125)

    assert engine_arguments(config, "model", weight_updates=False)["kv_cache_memory_bytes"] == 128 * 1024**2
    assert "VLLM_CPU_KVCACHE_SPACE" not in process_environment(config)


def test_a_gpu_takes_its_cache_from_its_own_memory() -> None:
    assert "kv_cache_memory_bytes" not in engine_arguments(EngineConfig(device="gpu"), "model", weight_updates=False)


def test_images_of_a_prompt_and_the_memory_for_them_are_bounded() -> None:
    arguments = engine_arguments(EngineConfig(device="cpu", max_images=3, image_cache_gib=0.5), "model", False)

    assert arguments["limit_mm_per_prompt"] == {"image": 3, "video": 0}
    assert arguments["mm_processor_cache_gb"] == 0.5
