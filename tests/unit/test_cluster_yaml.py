"""cluster.yaml through Ray's own loader: what `ray up` checks before it talks to AWS."""

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from deployments.app import THROUGHPUT_SWITCHES

ROOT = Path(__file__).resolve().parents[2]
SWITCHES = tuple(f"{name}={value}" for name, value in THROUGHPUT_SWITCHES.items())


@pytest.fixture
def written() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "cluster.yaml").read_text())


@pytest.fixture
def cluster(written: dict[str, Any]) -> dict[str, Any]:
    prepared = prepare_config(written)
    validate_config(prepared)
    return prepared


def test_ray_refuses_an_unknown_key(written: dict[str, Any]) -> None:
    written["max_wokers"] = 3

    with pytest.raises(jsonschema.ValidationError, match="max_wokers"):
        validate_config(prepare_config(written))


def test_every_role_has_nodes_with_its_resource(cluster: dict[str, Any]) -> None:
    units = {name: node["resources"] for name, node in cluster["available_node_types"].items()}

    assert units["head"]["head_node"] == 1
    assert units["train_a100"]["train_node"] == units["train_a100"]["GPU"] == 8
    assert units["serve_a100"]["serve_node"] == units["serve_a100"]["GPU"] == 8
    assert units["rollout_cpu"]["rollout_node"] == units["rollout_cpu"]["CPU"]
    assert units["rollout_cpu_spot"] == units["rollout_cpu"]


def test_only_nodes_that_may_vanish_are_spot(cluster: dict[str, Any]) -> None:
    spot = {
        name
        for name, node in cluster["available_node_types"].items()
        if node["node_config"].get("InstanceMarketOptions", {}).get("MarketType") == "spot"
    }

    assert spot == {"rollout_cpu_spot"}


def test_the_node_types_fit_under_the_limit_of_the_cluster(cluster: dict[str, Any]) -> None:
    assert sum(node["max_workers"] for node in cluster["available_node_types"].values()) <= cluster["max_workers"]


@pytest.mark.parametrize("commands", ["head_start_ray_commands", "worker_start_ray_commands"])
def test_ray_starts_with_the_throughput_switches_everywhere(cluster: dict[str, Any], commands: str) -> None:
    starts = [command for command in cluster[commands] if "ray start" in command]

    assert len(starts) == 1
    assert all(switch in starts[0] and starts[0].index(switch) < starts[0].index("ray start") for switch in SWITCHES)


@pytest.mark.parametrize("commands", ["head_setup_commands", "worker_setup_commands"])
def test_every_node_is_set_up_from_the_gpu_lock(cluster: dict[str, Any], commands: str) -> None:
    assert any("make setup ACCELERATOR=gpu" in command for command in cluster[commands])


def test_all_that_setup_needs_is_mounted(cluster: dict[str, Any]) -> None:
    mounted = set(cluster["file_mounts"].values())

    needed = {"configs", "envs", "deployments", "training", "requirements", "pyproject.toml", "Makefile", "LICENSE"}
    assert {f"./{name}" for name in needed} <= mounted
