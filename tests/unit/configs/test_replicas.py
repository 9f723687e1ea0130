"""What a replica takes is checked on its own: its engine, its GPUs, how many there are."""

import pytest

from configs.replicas import EngineConfig, ReplicaConfig


def test_fewer_replicas_at_most_than_at_least_are_refused() -> None:
    with pytest.raises(ValueError, match=r"max_replicas \(1\) is below min_replicas \(2\): raise max_replicas"):
        ReplicaConfig(min_replicas=2)


def test_replicas_may_shrink_to_none() -> None:
    assert ReplicaConfig(min_replicas=0).min_replicas == 0


def test_a_replica_takes_the_gpus_of_all_its_stages() -> None:
    assert EngineConfig(tensor_parallel_size=4, pipeline_parallel_size=2).gpus == 8


def test_an_engine_with_half_a_gpu_takes_no_more_of_its_memory() -> None:
    half = EngineConfig.model_validate({"gpu_share": 0.5, "gpu_memory_utilization": 0.4})
    assert (half.gpus, half.reserved_gpus) == (1, 0.5)
    with pytest.raises(ValueError, match=r"gpu_memory_utilization \(0\.85\) is above gpu_share \(0\.5\)"):
        EngineConfig.model_validate({"gpu_share": 0.5})
    with pytest.raises(ValueError, match=r"gpu_share 0\.5 is of one GPU, and the engine has 2"):
        EngineConfig.model_validate({"gpu_share": 0.5, "gpu_memory_utilization": 0.4, "tensor_parallel_size": 2})
