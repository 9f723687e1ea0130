"""A robot's episodes as a LeRobotDataset, version 3.0."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training.export import lerobot
from training.export.lerobot import ACTION, IMAGE, STATE, export_episodes
from training.export.robots import Frame, RobotEpisode


def episodes(lengths: list[int]) -> Iterator[RobotEpisode]:
    for number, length in enumerate(lengths):
        frames = [
            Frame(
                np.full((4, 6, 3), 51 * number, np.uint8),
                np.array([number, place], np.float32),
                np.array([0.5, -place], np.float32),
                place == length - 1,
                place == length - 1 and number > 0,
            )
            for place in range(length)
        ]
        yield RobotEpisode(f"task {number % 2}", frames)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(lerobot, "EPISODES_PER_FILE", 2)
    written = export_episodes(episodes([3, 2, 1]), tmp_path / "set", fps=5, robot="arm", names=["x", "y"])
    assert written == {"episodes": 3, "frames": 6, "tasks": 2, "successes": 2}
    return tmp_path / "set"


def frames_of(folder: Path) -> list[dict[str, Any]]:
    import datasets

    files = sorted(str(path) for path in (folder / "data").glob("*/*.parquet"))
    assert [Path(file).name for file in files] == ["file-000.parquet", "file-001.parquet"]
    return list(datasets.Dataset.from_parquet(files, cache_dir=str(folder.parent / "cache")))


def test_every_frame_is_a_row_with_its_place_in_episode_and_dataset(folder: Path) -> None:
    rows = frames_of(folder)
    assert [row["index"] for row in rows] == list(range(6))
    assert [row["episode_index"] for row in rows] == [0, 0, 0, 1, 1, 2]
    assert [row["frame_index"] for row in rows] == [0, 1, 2, 0, 1, 0]
    assert np.allclose([row["timestamp"] for row in rows], [0, 0.2, 0.4, 0, 0.2, 0])
    assert [row["task_index"] for row in rows] == [0, 0, 0, 1, 1, 0]
    assert [row["next.done"] for row in rows] == [False, False, True, False, True, True]
    assert [row["next.success"] for row in rows] == [False, False, False, False, True, True]
    assert rows[4][STATE] == [1.0, 1.0]
    assert rows[4][ACTION] == [0.5, -1.0]
    assert np.asarray(rows[4][IMAGE]).tolist() == np.full((4, 6, 3), 51).tolist()


def test_the_meta_data_say_what_is_where(folder: Path) -> None:
    import pandas

    info = json.loads((folder / "meta" / "info.json").read_text())
    assert (info["codebase_version"], info["fps"], info["robot_type"], info["splits"]) == (
        "v3.0",
        5,
        "arm",
        {"train": "0:3"},
    )
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"]) == (3, 6, 2)
    assert info["features"][ACTION] == {"dtype": "float32", "shape": [2], "names": ["x", "y"]}
    assert info["features"][IMAGE]["shape"] == [4, 6, 3]
    assert set(info["features"]) == set(frames_of(folder)[0])
    tasks = pandas.read_parquet(folder / "meta" / "tasks.parquet")
    assert tasks["task_index"].to_dict() == {"task 0": 0, "task 1": 1}
    rows = pandas.read_parquet(folder / "meta" / "episodes")
    assert rows["dataset_from_index"].tolist() == [0, 3, 5]
    assert rows["dataset_to_index"].tolist() == [3, 5, 6]
    assert rows["data/file_index"].tolist() == [0, 0, 1]
    assert rows["length"].tolist() == [3, 2, 1]


def test_statistics_are_those_of_all_frames(folder: Path) -> None:
    stats = json.loads((folder / "meta" / "stats.json").read_text())
    rows = frames_of(folder)
    for feature in (STATE, ACTION):
        values = np.array([row[feature] for row in rows])
        for name in ("min", "max", "mean", "std"):
            assert np.allclose(stats[feature][name], getattr(values, name)(0)), (feature, name)
    # three frames are black, two are 51 and one is 102 of 255
    assert np.allclose(stats[IMAGE]["mean"], np.full((3, 1, 1), (2 * 0.2 + 0.4) / 6))
    assert stats[IMAGE]["count"] == [6]
