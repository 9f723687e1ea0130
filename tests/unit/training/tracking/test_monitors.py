"""A tracking service that fails does not end a run; what the run itself writes is there all the same."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path

import pytest

from configs.base import ConfigError
from configs.training import TrainConfig
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
