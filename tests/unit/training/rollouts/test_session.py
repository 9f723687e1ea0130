"""What a run takes over from the application that it joins, and when it is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.serving import EngineConfig, PolicyConfig, ReplicaConfig
from configs.training import TrainConfig
from training.cluster.errors import ClusterError
from training.rollouts.session import as_served

JOINED = TrainConfig.parse({"serving": {"connect": "shared"}})


def served(root: str | None) -> PolicyConfig:
    return PolicyConfig(
        model="m", weights_root=root, replicas=ReplicaConfig(max_replicas=4), engine=EngineConfig(max_model_len=512)
    )


def test_a_joined_run_plays_on_all_replicas_of_the_fleet(tmp_path: Path) -> None:
    config = as_served(JOINED, served(f"{tmp_path}/"), str(tmp_path))

    assert config.serving.replicas.max_replicas == 4
    assert config.serving.engine.max_model_len == 512
    assert config.serving.connect == "shared"


@pytest.mark.parametrize("root", [None, "/elsewhere", "s3://bucket/weights"])
def test_a_run_whose_weights_the_replicas_would_never_see_is_refused(root: str | None, tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"set weights\.root"):
        as_served(JOINED, served(root), str(tmp_path))
