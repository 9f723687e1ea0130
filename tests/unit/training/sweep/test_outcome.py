"""What a sweep makes of the results of its trials; Ray Tune itself runs in tests/integration/test_cluster_way.py."""

from __future__ import annotations

import itertools
import json
import math
import pickle
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from configs.sweep import SweepConfig
from configs.training import TrainConfig
from training.sweep.outcome import read_results, summarize
from training.sweep.report import Progress, show, write
from training.sweep.trial import trial_config
from training.sweep.tuner import StopOnEvent

SWEEP = SweepConfig.parse(
    {"train": "configs/train/tictactoe_tiny.yaml", "space": {"optimizer.lr": {"grid": [0.1, 0.2, 0.3]}}}
)


def result(lr: float, success: float | None, finished: bool = False, error: Exception | None = None) -> Any:
    metrics = {"eval/success": success, "eval/return": 0.0, "step": 25, "run": "/runs/x", "finished": finished}
    return SimpleNamespace(config={"optimizer.lr": lr}, metrics=metrics if success is not None else None, error=error)


def test_the_best_trial_is_first_and_one_without_a_result_last(tmp_path: Path) -> None:
    failed = result(0.1, None, error=RuntimeError("no replica"))
    outcome = summarize(SWEEP, tmp_path, [failed, result(0.2, 0.4), result(0.3, 0.7, finished=True)], False)

    assert [(trial.trial, trial.status) for trial in outcome.trials] == [
        ("00002", "finished"),
        ("00001", "stopped early"),
        ("00000", "failed"),
    ]
    assert outcome.best is not None
    assert outcome.best.values == {"optimizer.lr": 0.3}
    assert outcome.trials[-1].error == "RuntimeError: no replica"


@pytest.mark.parametrize("order", list(itertools.permutations([0.4, math.nan, 0.7])))
def test_a_trial_whose_result_is_no_number_has_failed_and_is_last(order: tuple[float, ...], tmp_path: Path) -> None:
    """NaN compares with nothing: in some orders it came first."""
    outcome = summarize(SWEEP, tmp_path, [result(0.1, success) for success in order], False)
    assert [trial.success for trial in outcome.trials] == [0.7, 0.4, None]
    assert outcome.trials[-1].status == "failed"
    assert outcome.trials[-1].error == "its last result is no number: success nan, return 0.0"


def test_without_any_result_there_is_no_best_trial(tmp_path: Path) -> None:
    outcome = summarize(SWEEP, tmp_path, [result(0.1, None, error=RuntimeError("no replica"))], False)
    write(outcome, SWEEP, SWEEP.resolve())

    assert outcome.best is None
    assert json.loads(outcome.results.read_text())["best"] is None
    assert not outcome.best_config.exists()


def test_a_trial_that_a_signal_ended_is_not_said_to_be_stopped_early(tmp_path: Path) -> None:
    outcome = summarize(SWEEP, tmp_path, [result(0.1, 0.5)], interrupted=True)

    assert outcome.trials[0].status == "interrupted"


def test_the_best_trial_can_be_run_again_from_the_file_that_is_named(tmp_path: Path) -> None:
    outcome = summarize(SWEEP, tmp_path, [result(0.1, 0.2), result(0.2, 0.4)], False)
    said: list[Any] = []

    write(outcome, SWEEP, SWEEP.resolve())
    show(outcome, SWEEP, said.append)

    assert f"run it again: rayward train --config {outcome.best_config}" in said
    assert TrainConfig.load(outcome.best_config).optimizer.lr == 0.2
    assert yaml.safe_load(outcome.best_config.read_text())["steps"] == SWEEP.resolve().steps


def test_a_configured_weight_store_is_divided_between_the_trials() -> None:
    base = TrainConfig.parse({"weights": {"root": "s3://bucket/weights/"}, "serving": {"http_port": 8000}})

    config = trial_config(base, {"optimizer.lr": 0.1}, "lr-x-00001")

    assert config.weights.root == "s3://bucket/weights/lr-x-00001"
    assert (config.optimizer.lr, config.serving.http_port) == (0.1, 0)


def reported(trial_id: str, step: int, success: float, **more: Any) -> tuple[Any, dict[str, Any]]:
    trial = SimpleNamespace(trial_id=trial_id, config={"optimizer.lr": 0.1})
    return trial, {"eval/success": success, "eval/return": 0.0, "step": step, "run": "/runs/x", **more}


def test_a_sweep_that_is_killed_has_the_results_of_its_last_report(tmp_path: Path) -> None:
    progress = Progress(SWEEP, SWEEP.resolve(), tmp_path, "lr-x", lambda shown: None)
    for trial, result in (reported("5f_00000", 25, 0.2, done=True), reported("5f_00001", 25, 0.6)):
        progress.on_trial_result(0, [], trial, result)

    trials = read_results(tmp_path / "results.json")
    assert [(trial.trial, trial.status, trial.success) for trial in trials] == [
        ("00001", "running", 0.6),
        ("00000", "stopped early", 0.2),
    ]
    assert TrainConfig.load(tmp_path / "best.yaml").optimizer.lr == 0.1


def test_a_resumed_sweep_knows_its_trials_before_they_report_again(tmp_path: Path) -> None:
    """Killed again before they could, they were forgotten otherwise, and trials that had ended trained once more."""
    progress = Progress(SWEEP, SWEEP.resolve(), tmp_path, "lr-x", lambda shown: None)
    progress.on_trial_result(0, [], *reported("5f_00000", 50, 0.2, done=True))
    progress.on_trial_result(0, [], *reported("5f_00001", 25, 0.6))

    before = read_results(tmp_path / "results.json")
    resumed = Progress(SWEEP, SWEEP.resolve(), tmp_path, "lr-x", lambda shown: None, before)
    resumed.on_trial_result(0, [], *reported("6a_00000", 25, 0.1, replayed=True))

    found = {trial.trial: (trial.status, trial.step) for trial in read_results(tmp_path / "results.json")}
    assert found == {"00000": ("stopped early", 50), "00001": ("running", 25)}
    outcome = summarize(SWEEP, tmp_path, [result(0.1, 0.1)], interrupted=True, before=before)
    assert {trial.trial: trial.status for trial in outcome.trials} == {"00000": "stopped early", "00001": "interrupted"}


def test_ray_tune_can_save_the_callback_with_the_trials_that_it_knows_and_the_stopper(tmp_path: Path) -> None:
    progress = Progress(SWEEP, SWEEP.resolve(), tmp_path, "lr-x", lambda shown: None)
    stopper = StopOnEvent(threading.Event())
    progress.on_trial_result(0, [], *reported("5f_00000", 25, 0.2))

    restored = pickle.loads(pickle.dumps(progress))
    restored.on_trial_result(0, [], *reported("5f_00001", 25, 0.6))

    assert {trial.trial for trial in read_results(tmp_path / "results.json")} == {"00000", "00001"}
    assert not pickle.loads(pickle.dumps(stopper)).stop_all()
