"""A tracking service that fails does not end a run; what the run itself writes is there all the same."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path

import pytest

from configs.base import ConfigError
from configs.training import TrainConfig
from tests.unit.training.tracking.wandb_files import histories
from training.tracking import monitors
from training.tracking.monitors import Monitors, check_tracking


class Failing:
    """A service that takes the first step, and fails from then on."""

    def __init__(self, run_id: str) -> None:
        self.steps: list[int] = []

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self.steps.append(step)
        if step:
            raise ConnectionError("the service is gone")

    def close(self) -> None:
        raise ConnectionError("the service is gone")


def test_a_service_that_fails_in_the_middle_is_switched_off_with_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(monitors, "Prometheus", Failing)
    tracked = Monitors(TrainConfig.parse({"tracking": {"prometheus": True}}), tmp_path)

    with caplog.at_level(logging.WARNING, logger="rayward"):
        for step in range(3):
            tracked.log(step, {"train/loss": 0.5})
        tracked.close()

    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 1, 2]
    assert caplog.text.count("tracking.prometheus failed and is switched off") == 1
    assert "the service is gone" in caplog.text


def test_a_service_that_does_not_start_is_switched_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(run_id: str) -> None:
        raise RuntimeError("no such service")

    monkeypatch.setattr(monitors, "Prometheus", refuse)

    tracked = Monitors(TrainConfig.parse({"tracking": {"prometheus": True}}), tmp_path)

    tracked.log(0, {"train/loss": 0.5})
    assert "no such service" in caplog.text
    assert (tmp_path / "metrics.jsonl").stat().st_size


def test_wandb_online_without_a_key_is_told_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("HOME", str(tmp_path))  # no ~/.netrc with a key

    with pytest.raises(ConfigError, match="set WANDB_API_KEY or run `wandb login`"):
        check_tracking(TrainConfig.parse({"tracking": {"wandb": "online"}}))
    check_tracking(TrainConfig.parse({"tracking": {"wandb": "offline"}}))


def losses(folder: Path) -> dict[str, list[tuple[int, float]]]:
    return {
        name: [(row["step"], row["train/loss"]) for row in rows if "train/loss" in row]
        for name, rows in histories(folder).items()
    }


def play(folder: Path, steps: range, loss: float) -> None:
    tracked = Monitors(TrainConfig.parse({"tracking": {"wandb": "offline", "prometheus": False}}), folder, steps.start)
    for step in steps:
        tracked.log(step, {"train/loss": loss})
    tracked.close()


@pytest.fixture
def run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pytest.importorskip("wandb")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def test_wandb_shows_each_step_once_as_it_was_played_last(run_folder: Path) -> None:
    """W&B drops steps that its run has passed: after a resume from step 2, its curve was that of weights that no longer
    exist, until step 4."""
    play(run_folder, range(4), loss=1.0)
    play(run_folder, range(2, 5), loss=2.0)
    play(run_folder, range(5, 6), loss=3.0)

    shown = losses(run_folder)
    first, resumed = shown
    assert first == "run"
    assert shown[first] == [(0, 1.0), (1, 1.0), (2, 1.0), (3, 1.0)]
    assert shown[resumed] == [(0, 1.0), (1, 1.0), (2, 2.0), (3, 2.0), (4, 2.0), (5, 3.0)]


def test_a_resume_that_plays_nothing_again_continues_its_wandb_run(run_folder: Path) -> None:
    play(run_folder, range(2), loss=1.0)
    play(run_folder, range(2, 4), loss=2.0)

    assert losses(run_folder) == {"run": [(0, 1.0), (1, 1.0), (2, 2.0), (3, 2.0)]}


def test_wandb_that_is_switched_on_by_a_resume_gets_the_steps_before(run_folder: Path) -> None:
    lines = [json.dumps({"step": step, "train/loss": 1.0}) + "\n" for step in range(2)]
    (run_folder / "metrics.jsonl").write_text("".join(lines))

    play(run_folder, range(2, 3), loss=2.0)

    assert losses(run_folder) == {"run": [(0, 1.0), (1, 1.0), (2, 2.0)]}
