"""What a run leaves on disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pyarrow import parquet

from configs.base import ConfigError
from configs.training import TrainConfig
from deployments.storage import runs
from training.rollouts import records
from training.tracking.monitors import JsonLines
from training.types import Episode, Group, Task, Turn


def test_episodes_are_one_row_a_turn_with_tokens_and_versions(tmp_path: Path) -> None:
    task = Task("tictactoe", 7, 3)
    turns = (Turn((1, 2), (3,), (-0.5,), 4, 0.0), Turn((1, 2, 3, 5), (6, 7), (-0.1, -0.2), 4, 1.0))
    group = Group(task, (Episode(task, 0, turns, "completed", True),))
    rows = parquet.read_table(records.write([group], 9, tmp_path)).to_pylist()
    assert [row["completion_ids"] for row in rows] == [[3], [6, 7]]
    assert {(row["step"], row["seed"], row["weight_version"], row["return"]) for row in rows} == {(9, 7, 4, 1.0)}


def test_a_resumed_run_writes_each_step_once(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    log = JsonLines(file)
    for step in range(5):
        log.log(step, {"x": 0.0})
    log.close()
    resumed = JsonLines(file, first_step=3)
    resumed.log(3, {"x": 1.0})
    resumed.close()
    assert [json.loads(line)["step"] for line in file.read_text().splitlines()] == [0, 1, 2, 3]


def test_a_run_is_found_by_folder_and_by_id(tmp_path: Path) -> None:
    run = runs.create(TrainConfig.parse({"storage_path": str(tmp_path)}))
    assert runs.find(str(run.path)) == run
    assert runs.find(run.path.name, str(tmp_path)) == run
    assert run.load_config().storage_path == str(tmp_path)
    with pytest.raises(ConfigError, match="no run 'nothing'"):
        runs.find("nothing", str(tmp_path))


def test_a_storage_path_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ConfigError, match="Set storage_path elsewhere"):
        runs.create(TrainConfig.parse({"storage_path": str(file)}))
