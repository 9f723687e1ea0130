"""metrics.jsonl is strict JSON, holds each step once, and outlives a writer that was killed."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training.tracking.json_lines import JsonLines, read_rows


def written(file: Path, steps: int) -> Path:
    log = JsonLines(file)
    for step in range(steps):
        log.log(step, {"x": 0.5})
    log.close()
    return file


def steps(file: Path) -> list[int]:
    return [json.loads(line)["step"] for line in file.read_text().splitlines()]


def test_a_resumed_run_writes_each_step_once(tmp_path: Path) -> None:
    file = written(tmp_path / "metrics.jsonl", 5)

    resumed = JsonLines(file, first_step=3)
    resumed.log(3, {"x": 1.0})
    resumed.close()

    assert steps(file) == [0, 1, 2, 3]


@pytest.mark.parametrize("half", ['{"step": 3, "x": 0.', '{"step": 3}{"st', "\0\0\0\0", "3", '{"x": 1}'])
def test_half_a_last_line_is_dropped_with_a_warning(
    half: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A crash, or a full disk: without this the run could never be resumed."""
    file = written(tmp_path / "metrics.jsonl", 3)
    with file.open("a") as stream:
        stream.write(half)

    resumed = JsonLines(file, first_step=10)
    resumed.log(3, {"x": 1.0})
    resumed.close()

    assert steps(file) == [0, 1, 2, 3]
    assert f"{file}: line 4 is no whole JSON object" in caplog.text


def refuse(name: str) -> Any:
    raise AssertionError(f"{name} is no JSON")


def test_a_value_that_is_not_finite_is_null_and_its_name_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "metrics.jsonl"
    log = JsonLines(file)
    for step in range(2):
        log.log(step, {"train/loss": float("nan"), "train/kl": float("-inf"), "x": np.float32(0.5)})
    log.close()

    rows = [json.loads(line, parse_constant=refuse) for line in file.read_text().splitlines()]
    assert rows[0] == {"step": 0, "train/loss": None, "train/kl": None, "x": 0.5}
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert told == [
        "metric train/loss is nan in step 0: metrics.jsonl holds null for it",
        "metric train/kl is -inf in step 0: metrics.jsonl holds null for it",
    ]


def test_a_file_with_bare_nan_of_an_earlier_version_is_read_and_continued_as_strict_json(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 0, "train/loss": NaN}\n')

    JsonLines(file, first_step=1).close()

    assert read_rows(file) == [{"step": 0, "train/loss": None}]
    assert "NaN" not in file.read_text()


def test_a_learning_curve_is_drawn_of_what_there_is(tmp_path: Path) -> None:
    from training.tracking.plots import learning_curve

    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 0, "rollout/success": 0.1}\n{"step": 1, "rollout/success": null}\n{"step": 2, "roll')

    learning_curve(file, tmp_path / "curve.png", "t", {})

    assert (tmp_path / "curve.png").stat().st_size > 10_000
