"""What a run takes over from the application that it joins, and when it is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.policies import PolicyConfig
from configs.replicas import EngineConfig, ReplicaConfig
from configs.training import TrainConfig
from deployments.storage import ownership
from deployments.storage.owned import Owner
from deployments.storage.ownership import RunInUse, RunOwner
from training.cluster.errors import ClusterError
from training.rollouts.session import as_served, store_of_ours

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


def test_a_store_that_another_run_publishes_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / ownership.FILE).write_text(RunOwner(Owner(7, 1, "abcdef01"), "elsewhere").to_json())

    with pytest.raises(RunInUse, match="process 7 on elsewhere"), store_of_ours(str(tmp_path), deadline_s=0.0):
        pass
