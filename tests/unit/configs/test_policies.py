"""A policy's settings are checked on their own: its name, its replicas, its GPUs."""

from __future__ import annotations

from typing import Any

import pytest

from configs.base import ConfigError
from configs.policies import EngineConfig
from configs.serving import ServeConfig


def serve(policy: dict[str, Any]) -> ServeConfig:
    return ServeConfig.parse({"policies": [policy]})


@pytest.mark.parametrize("name", ["", "a/b", "-a", "a b"])
def test_a_name_that_could_not_stand_in_a_route_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"policies\.0\.name"):
        serve({"name": name, "model": "m"})


def test_fewer_replicas_at_most_than_at_least_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"max_replicas \(1\) is below min_replicas \(2\): raise max_replicas"):
        serve({"model": "m", "replicas": {"min_replicas": 2}})


def test_replicas_may_shrink_to_none() -> None:
    assert serve({"model": "m", "replicas": {"min_replicas": 0}}).policies[0].replicas.min_replicas == 0


def test_a_replica_takes_the_gpus_of_all_its_stages() -> None:
    assert EngineConfig(tensor_parallel_size=4, pipeline_parallel_size=2).gpus == 8
