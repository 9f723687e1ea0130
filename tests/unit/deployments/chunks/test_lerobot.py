"""What is told of a LeRobot policy by its files, without LeRobot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from configs.base import ConfigError
from deployments.chunks.checkpoint import tiny_checkpoint
from deployments.chunks.lerobot import LeRobotPolicy, is_lerobot, read_policy
from tests.unit.deployments.engines.lerobot.cases import FRONT, WRIST, camera, config, lerobot_folder

STATE = {"observation.state": {"type": "STATE", "shape": [2]}}


def test_config_json_decides_whose_folder_it_is(tmp_path: Path) -> None:
    assert is_lerobot(lerobot_folder(tmp_path / "theirs")), "LeRobot writes a train_config.json, too"
    assert not is_lerobot(tiny_checkpoint(tmp_path / "ours"))
    assert not is_lerobot(tmp_path / "nothing")


def test_the_images_of_a_client_are_the_cameras_in_the_order_of_config_json(tmp_path: Path) -> None:
    assert read_policy(lerobot_folder(tmp_path)) == LeRobotPolicy("linear", (FRONT, WRIST), (4, 6), 2, 2, 1)


def test_a_camera_that_was_never_there_is_not_asked_for(tmp_path: Path) -> None:
    inputs = {**STATE, FRONT: camera(), "observation.images.empty_camera_0": camera(480, 640)}
    assert read_policy(lerobot_folder(tmp_path, input_features=inputs)).cameras == (FRONT,)


def test_a_policy_without_a_state_takes_none(tmp_path: Path) -> None:
    assert read_policy(lerobot_folder(tmp_path, input_features={FRONT: camera()})).state_dim == 0


@pytest.mark.parametrize("name", ["model.safetensors", "policy_preprocessor.json", "policy_postprocessor.json"])
def test_a_missing_file_is_named_with_the_folder_that_was_meant(tmp_path: Path, name: str) -> None:
    folder = lerobot_folder(tmp_path)
    (folder / name).unlink()
    with pytest.raises(ConfigError, match=rf"has no {name}: .*checkpoints/last/pretrained_model"):
        read_policy(folder)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"input_features": {**STATE, FRONT: camera(), WRIST: camera(8, 8)}}, "the cameras differ in their resolution"),
        ({"input_features": STATE}, "no camera"),
        ({"input_features": {FRONT: {"type": "VISUAL", "shape": [4, 6]}}}, r"not \[3, height, width\]"),
        (
            {
                "input_features": {
                    **config()["input_features"],
                    "observation.environment_state": STATE["observation.state"],
                }
            },
            r"wants observation\.environment_state",
        ),
        ({"output_features": {}}, "output_features has no action"),
        ({"output_features": {"action": {"shape": [2]}}}, r"output_features\.action\.type: Field required"),
    ],
)
def test_a_policy_that_no_client_could_ask_is_refused_by_what_it_wants(
    tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        read_policy(lerobot_folder(tmp_path, **changes))
