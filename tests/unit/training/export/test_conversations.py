"""A run's episodes as a Hugging Face dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.base import ConfigError
from configs.training import TrainConfig
from deployments.storage import runs
from deployments.storage.runs import RunFolder
from training.commands import app
from training.export.conversations import batched, export_run
from training.rollouts import records
from training.types import Episode, Group, Task, Turn

PICTURES = [np.full((4, 6, 3), value, np.uint8) for value in (10, 200)]


def turn(said: str, token: int, **more: Any) -> Turn:
    return Turn((1, 2), (token,), (-0.5,), 4, 0.25, text=said, prompt_text=f"before {said}", **more)


@pytest.fixture
def recorded(tmp_path: Path) -> RunFolder:
    """Two steps of a group each: one sibling won, one lost."""
    run = runs.create(TrainConfig.parse({"storage_path": str(tmp_path / "storage"), "env": {"name": "key_door"}}))
    for step in range(2):
        task = Task("key_door", 7, step)
        won = Episode(
            task, 0, (turn("up", 5, images=(PICTURES[0],)), turn("down", 6, images=(PICTURES[1],))), "completed", True
        )
        lost = Episode(task, 1, (turn("left", 8),), "truncated", False, truncation="environment")
        records.write([Group(task, (won, lost))], step, run.episodes)
    return run


def loaded(folder: Path, tmp_path: Path) -> Any:
    import datasets

    return datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))


def test_an_episode_is_a_row_with_its_conversation_tokens_and_pictures(recorded: RunFolder, tmp_path: Path) -> None:
    assert app.run(["export", "--run", str(recorded.path), "--output", str(tmp_path / "set")]) == 0

    rows = loaded(tmp_path / "set", tmp_path)
    assert [(row["step"], row["sibling"], row["success"], row["end"]) for row in rows] == [
        (0, 0, True, "completed"), (0, 1, False, "truncated"), (1, 0, True, "completed"), (1, 1, False, "truncated"),
    ]  # fmt: skip
    won = rows[2]
    assert [(message["role"], message["content"]) for message in won["messages"]] == [
        ("user", "before up"), ("assistant", "up"), ("user", "before down"), ("assistant", "down"),
    ]  # fmt: skip
    assert [(each["completion_ids"], each["weight_version"], each["reward"]) for each in won["turns"]] == [
        ([5], 4, 0.25),
        ([6], 4, 0.25),
    ]
    assert [np.asarray(image).tolist() for image in won["images"]] == [image.tolist() for image in PICTURES]
    assert (won["run"], won["env"], won["seed"], won["return"]) == (recorded.path.name, "key_door", 7, 0.5)
    assert f"# Episodes of {recorded.path.name}" in (tmp_path / "set" / "README.md").read_text()


def test_successes_alone_can_be_exported_and_the_rest_is_counted(
    recorded: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["export", "--run", str(recorded.path), "--output", str(tmp_path / "set"), "--success-only"]
    assert app.run(command) == 0
    assert set(loaded(tmp_path / "set", tmp_path)["success"]) == {True}
    assert "2 episodes written" in capsys.readouterr().out.replace("\n", " ")
    assert "left out: 2 without success" in (tmp_path / "set" / "README.md").read_text()


def test_what_cannot_be_exported_is_told_and_leaves_nothing(recorded: RunFolder, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "mine.txt").write_text("by hand")
    with pytest.raises(ConfigError, match="taken exists and is not empty: name a new folder"):
        export_run(recorded, taken)
    assert (taken / "mine.txt").read_text() == "by hand"
    empty = runs.create(TrainConfig.parse({"storage_path": str(tmp_path / "storage")}))
    with pytest.raises(ConfigError, match=r"has no recorded episodes \(tracking.episodes_every_steps"):
        export_run(empty, tmp_path / "set")
    lost = Task("key_door", 1, 0)
    records.write([Group(lost, (Episode(lost, 0, (turn("up", 5),), "completed", False),))], 0, empty.episodes)
    with pytest.raises(ConfigError, match="no episode is left to be exported: 1 without success"):
        export_run(empty, tmp_path / "set", success_only=True)
    assert not (tmp_path / "set").exists()


def test_rows_are_written_in_files_of_a_bounded_size() -> None:
    rows = ({"place": place} for place in range(5))
    assert [[row["place"] for row in batch] for batch in batched(rows, 2)] == [[0, 1], [2, 3], [4]]
