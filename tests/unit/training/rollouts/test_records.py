"""Episodes on disk."""

from __future__ import annotations

from pathlib import Path

from pyarrow import parquet

from training.rollouts import records
from training.types import Episode, Group, Task, Turn


def test_episodes_are_one_row_a_turn_with_tokens_and_versions(tmp_path: Path) -> None:
    task = Task("tictactoe", 7, 3)
    turns = (Turn((1, 2), (3,), (-0.5,), 4, 0.0), Turn((5,), (6, 7), (-0.1, -0.2), 4, 1.0, extends=True))
    group = Group(task, (Episode(task, 0, turns, "completed", True),))
    rows = parquet.read_table(records.write([group], 9, tmp_path)).to_pylist()
    assert [row["prompt_ids"] for row in rows] == [[1, 2], [1, 2, 3, 5]]
    assert records.turns(rows) == list(turns)
    assert [row["completion_ids"] for row in rows] == [[3], [6, 7]]
    assert {(row["step"], row["seed"], row["weight_version"], row["return"]) for row in rows} == {(9, 7, 4, 1.0)}
