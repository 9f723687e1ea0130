"""Behaviour cloning from what the exporter recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.base import ConfigError
from configs.bc import BCConfig
from training.export.lerobot import export_episodes
from training.export.robots import RobotEpisode, expert_episodes
from training.imitation.recorded import recorded

LENGTH = 4


def config(**more: Any) -> BCConfig:
    demonstrations = {"episodes": 3, "noise": 0.1, "keep_every": 2}
    small = {"table": {"side": 16}, "chunk_len": LENGTH, "max_delay": 1, "evaluation": {"execute_steps": 2}}
    return BCConfig.parse({"demonstrations": demonstrations, **small, **more})


@pytest.fixture
def shown() -> list[RobotEpisode]:
    return list(expert_episodes(config()))


@pytest.fixture
def folder(shown: list[RobotEpisode], tmp_path: Path) -> Path:
    export_episodes(iter(shown), tmp_path / "set", fps=10, robot="reach", names=["x", "y"])
    return tmp_path / "set"


def test_every_second_frame_comes_with_the_actions_that_followed_it(shown: list[RobotEpisode], folder: Path) -> None:
    found = recorded(folder, config())

    kept = [(episode, place) for n, episode in enumerate(shown) for place in range(n % 2, len(episode.frames), 2)]
    assert len(found) == len(kept)
    for (episode, place), image, state, prompt, chunk in zip(
        kept, found.images, found.states, found.prompts, found.chunks_H, strict=True
    ):
        frame = episode.frames[place]
        assert prompt == episode.instruction
        assert (image == frame.image).all()
        assert (state == frame.state).all()
        following = [each.action for each in episode.frames[place : place + LENGTH]]
        assert np.array_equal(chunk[: len(following)], following)
        assert all(np.array_equal(action, episode.frames[-1].action) for action in chunk[len(following) :])


def test_a_dataset_of_another_camera_or_none_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has pictures, .*\(16, 16, 3\).* and the table has .*\(32, 32, 3\)"):
        recorded(folder, config(table={"side": 32}))
    with pytest.raises(ConfigError, match=r"is no LeRobotDataset .*FileNotFoundError.*rayward export"):
        recorded(tmp_path, config())
