"""`rayward eval --env` on real applications: the arm over /act and over gRPC, the cave over /get_action."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from configs.bc import BCConfig
from tests.integration.contracts.robots import RobotServer
from training.commands import app

pytestmark = pytest.mark.integration

FEW = ("--episodes", "2", "--parallel", "2", "--timeout-s", "120")


def evaluated(file: Path, *arguments: str) -> dict[str, Any]:
    assert app.run(["eval", *FEW, *arguments, "--json", str(file)]) == 0
    written: dict[str, Any] = json.loads(file.read_text())
    assert (written["played"], written["server_lost"]) == (2, 0), written
    return written


def test_the_arm_is_played_by_a_vision_language_model(vision: httpx.Client, tmp_path: Path) -> None:
    pytest.importorskip("mujoco")
    url = str(vision.base_url).rstrip("/")
    written = evaluated(
        tmp_path / "eval.json", "--env", "arm", "--url", url, "--set", "env.kwargs.task=reach",
        "--set", "env.kwargs.max_steps=2",
    )  # fmt: skip
    assert written["settings"] == {"task": "reach", "max_steps": 2, "split": "heldout"}
    assert written["steps"] == 2
    assert all(outcome["answers"] == 2 for outcome in written["outcomes"])


def test_the_cave_is_played_by_a_vision_language_model(vision: httpx.Client, tmp_path: Path) -> None:
    url = str(vision.base_url).rstrip("/")
    written = evaluated(tmp_path / "eval.json", "--env", "cave", "--url", url, "--set", "env.kwargs.max_steps=2")
    assert all(1 <= outcome["steps"] <= 2 for outcome in written["outcomes"])


def test_the_arm_is_played_by_a_served_chunk_policy(robots: RobotServer, tmp_path: Path) -> None:
    pytest.importorskip("mujoco")
    written = evaluated(
        tmp_path / "eval.json", "--env", "arm", "--grpc", robots.grpc, "--policy", "robot",
        "--execute-steps", "5", "--set", "env.kwargs.task=pick", "--set", "env.kwargs.max_steps=10",
    )  # fmt: skip
    assert [outcome["answers"] for outcome in written["outcomes"]] == [2, 2]
    assert written["success"]["value"] == 0.0, "random weights"


def test_a_policy_that_was_cloned_reaches_once_it_is_served(robots: RobotServer, tmp_path: Path) -> None:
    """It is loaded into the running application beside the other policy, as `rayward load` does."""
    pytest.importorskip("mujoco")
    from deployments.client.policies import PoliciesClient
    from training.imitation.chunks import clone

    shorter = ("demonstrations.episodes=120", "training.steps=500", "training.batch_size=96", "evaluation.episodes=1")
    config = BCConfig.load("configs/bc/arm_reach.yaml", [f"output={tmp_path / 'arm'}", *shorter])
    clone(config)
    policy = {
        "name": "arm", "kind": "chunks", "checkpoint": str(config.output), "device": "cpu", "flow_steps": 5,
        "request_deadline_s": 20.0, "replicas": {"drain_s": 2.0, "num_cpus": 0.5},
    }  # fmt: skip
    with PoliciesClient(f"http://{robots.http}") as client:
        client.load("arm", policy, wait_s=120)
        code = app.run(
            ["eval", "--env", "arm", "--grpc", robots.grpc, "--policy", "arm", "--episodes", "10",
             "--execute-steps", "4", "--set", "env.kwargs.task=reach", "--set", "env.kwargs.state=estimated",
             "--json", str(tmp_path / "eval.json")]
        )  # fmt: skip
        client.unload("arm", wait_s=120)
    written = json.loads((tmp_path / "eval.json").read_text())
    assert (code, written["played"]) == (0, 10)
    assert written["success"]["value"] >= 0.8
