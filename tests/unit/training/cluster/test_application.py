"""A start that cannot succeed is told before Ray starts, with its first cause."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from configs.base import ConfigError
from configs.policies import ChunkPolicy, PolicyConfig
from configs.replicas import EngineConfig
from configs.serving import HttpConfig, ServeConfig
from configs.training import TrainConfig
from tests.unit.deployments.engines.lerobot.cases import lerobot_folder
from training.cluster import application, memory
from training.cluster.application import check_servable
from training.cluster.errors import ClusterError
from training.cluster.placement import placement


@pytest.fixture
def model(policy_folder: Path, tmp_path: Path) -> Path:
    """A whole model with 256 positions, to be broken."""
    return Path(shutil.copytree(policy_folder, tmp_path / "model"))


def policy(model: Path, max_model_len: int = 256, device: str = "cpu") -> PolicyConfig:
    return PolicyConfig(
        model=str(model), engine=EngineConfig.model_validate({"max_model_len": max_model_len, "device": device})
    )


def test_a_whole_model_can_be_served(model: Path) -> None:
    check_servable(policy(model))


def test_a_folder_without_weights_is_told(model: Path) -> None:
    (model / "model.safetensors").unlink()
    with pytest.raises(ClusterError, match=r"policy 'policy' cannot be served: .* holds no weights"):
        check_servable(policy(model))


def test_half_a_weight_file_is_told(model: Path) -> None:
    file = model / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ClusterError, match="cut off"):
        check_servable(policy(model))


def test_a_context_beyond_the_models_positions_is_told(model: Path) -> None:
    with pytest.raises(ClusterError, match=r"max_model_len is 257, .* has 256 positions .* at most 256"):
        check_servable(policy(model, max_model_len=257))


@pytest.mark.parametrize("key", ["rope_parameters", "rope_scaling"])
def test_positions_that_are_scaled_are_left_to_the_engine(model: Path, key: str) -> None:
    file = model / "config.json"
    config = json.loads(file.read_text())
    config.pop("rope_parameters", None)
    file.write_text(json.dumps(config | {key: {"rope_type": "yarn", "factor": 4.0}}))

    check_servable(policy(model, max_model_len=1024))


def test_a_gpu_that_is_not_there_is_told(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(application, "gpus_here", lambda: 0)
    with pytest.raises(ClusterError, match="this machine has none"):
        check_servable(policy(model, device="gpu"))


def test_the_gpus_of_a_cluster_are_not_judged_by_this_machine(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    monkeypatch.setattr(application, "gpus_here", lambda: 0)
    check_servable(policy(model, device="gpu"))


def test_a_proxy_that_does_not_get_ready_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Serve kills it when its time is over, and Ray's own error says that an actor died."""
    from ray import serve
    from ray.exceptions import RayActorError

    def start(**_: object) -> None:
        raise RayActorError

    monkeypatch.setattr(serve, "start", start)
    with pytest.raises(ClusterError, match=r"the proxy of Ray Serve was not ready on port \d+ .*busy"):
        application.start_serve(HttpConfig(port=0))


def test_policies_that_were_loaded_end_with_their_application(monkeypatch: pytest.MonkeyPatch) -> None:
    deleted: list[str] = []
    running = ("managed", "managed+arm", "managed-too", "other")
    monkeypatch.setattr("ray.serve.status", lambda: SimpleNamespace(applications=dict.fromkeys(running)))
    monkeypatch.setattr("ray.serve.delete", lambda name, _blocking: deleted.append(name))
    monkeypatch.setattr(application, "start_serve", lambda *_: None)
    monkeypatch.setattr(application, "_run", lambda app, config: None)
    policies = [{"kind": "provider", "model": "openai/gpt-4o"}]
    for manage in (True, False):
        config = ServeConfig.parse({"name": "managed", "policies": policies, "http": {"manage_policies": manage}})
        with application.application(config):
            deleted.append("-")

    assert deleted == ["-", "managed", "managed+arm", "-", "managed"]


def test_a_folder_of_lerobot_can_be_served_and_what_it_lacks_is_named(tmp_path: Path) -> None:
    folder = lerobot_folder(tmp_path)
    robot = ChunkPolicy(kind="chunks", checkpoint=str(folder), device="cpu")

    check_servable(robot)
    (folder / "policy_preprocessor.json").unlink()

    with pytest.raises(ClusterError, match=r"LeRobot policy folder .* has no policy_preprocessor\.json"):
        check_servable(robot)


def test_past_versions_have_a_replica_of_their_own_beside_any_number_of_the_policy() -> None:
    serving = {"serving": {"replicas": {"min_replicas": 2, "max_replicas": 4}}}
    config = TrainConfig.parse({**serving, "self_play": {"past_share": 0.5}})
    policy, past = application.serve_config(config, "model", "/weights", port=1).policies
    assert isinstance(past, PolicyConfig)
    assert (policy.name, past.name) == ("policy", "policy-past")
    assert (past.weights_root, past.replicas.min_replicas, past.replicas.max_replicas) == ("/weights-past", 1, 1)
    roles = {role.name: role.count for role in placement(config)}
    assert (roles["policy replica"], roles["replica of past versions"]) == (2, 1)
    assert memory.of_training(config).total_bytes > memory.of_training(TrainConfig.parse(serving)).total_bytes
    with pytest.raises(ConfigError, match=r"past_share needs a replica.*serving\.connect"):
        TrainConfig.parse({"self_play": {"past_share": 0.5}, "serving": {"connect": "rayward"}})
