"""A sweep is resumed from its own folder, as it was configured; its trials continue their own runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from configs.base import ConfigError
from configs.sweep import SweepConfig
from configs.training import TrainConfig
from deployments.storage import runs
from training.sweep.outcome import TrialOutcome
from training.sweep.resume import keep_sweep, sweep_to_resume
from training.sweep.trial import decided_reports, reports_before_resume, run_to_continue, trial_config

TRAIN = "configs/train/tictactoe_tiny.yaml"


@pytest.fixture
def folder(tmp_path: Path) -> runs.RunFolder:
    sweep = SweepConfig.parse(
        {"train": TRAIN, "storage_path": str(tmp_path), "space": {"optimizer.lr": {"grid": [0.1, 0.2]}}}
    )
    found = runs.create(sweep.resolve(), sweep.name)
    keep_sweep(found, sweep)
    return found


def test_a_sweep_is_resumed_as_it_was_configured(folder: runs.RunFolder) -> None:
    sweep, base, found = sweep_to_resume(str(folder.path))
    assert found == folder
    assert sweep.space["optimizer.lr"].grid == [0.1, 0.2]
    assert base == folder.load_config()


def test_a_folder_that_is_no_sweep_is_refused(folder: runs.RunFolder, tmp_path: Path) -> None:
    run = runs.create(folder.load_config())
    with pytest.raises(ConfigError, match=r"is not the folder of a sweep: it has no sweep\.json"):
        sweep_to_resume(str(run.path))
    with pytest.raises(ConfigError, match="no run"):
        sweep_to_resume(str(tmp_path / "elsewhere"))


def test_a_changed_sweep_is_refused_by_the_setting_s_name(folder: runs.RunFolder, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"trials is 4 in .* and cannot become 8"):
        sweep_to_resume(str(folder.path), overrides=["trials=8"])

    document = json.loads((folder.path / "sweep.json").read_text())
    (tmp_path / "same.yaml").write_text(json.dumps(document))
    assert sweep_to_resume(str(folder.path), str(tmp_path / "same.yaml"))[2] == folder
    run = json.loads(folder.config.read_text())
    folder.config.write_text(json.dumps({**run, "steps": 7}))  # as if the training configuration were another now
    with pytest.raises(ConfigError, match=r"steps is 7 in .* and cannot become"):
        sweep_to_resume(str(folder.path), str(tmp_path / "same.yaml"))


def run_of_trial(config: TrainConfig, checkpoint: int, evaluated: list[float | None]) -> runs.RunFolder:
    """A run that was evaluated after each second step and has a checkpoint."""
    run = runs.create(config, "two-x-00001")
    done = run.checkpoints / f"step-{checkpoint:08d}"
    done.mkdir()
    (done / "done.json").write_text("{}")
    for number, success in enumerate(evaluated):
        rows = [{"step": 2 * number}, {"step": 2 * number + 1, "eval/success": success, "eval/return": 0.5}]
        with run.metrics.open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    return run


def test_a_trial_reports_again_what_its_newest_checkpoint_holds(folder: runs.RunFolder) -> None:
    run = run_of_trial(folder.load_config(), checkpoint=4, evaluated=[0.1, 0.3, 0.9])
    assert [(report["step"], report["eval/success"]) for report in reports_before_resume(run)] == [(2, 0.1), (4, 0.3)]


def test_a_trial_continues_the_run_of_its_name_and_configuration(folder: runs.RunFolder) -> None:
    config = trial_config(folder.load_config(), {"optimizer.lr": 0.1}, "two-x-00001")
    assert run_to_continue(config, "two-x-00001") is None
    run = run_of_trial(config, checkpoint=2, evaluated=[0.1])

    assert run_to_continue(config, "two-x-00001") == run
    assert run_to_continue(config, "two-x-0000") is None
    other = trial_config(folder.load_config(), {"optimizer.lr": 0.2}, "two-x-00001")
    assert run_to_continue(other, "two-x-00001") is None


def test_a_trial_that_has_ended_reports_its_result_and_trains_no_more(folder: runs.RunFolder) -> None:
    run = run_of_trial(folder.load_config(), checkpoint=6, evaluated=[0.1, 0.3])
    before = TrialOutcome("00001", {}, "stopped early", 4, 0.3, 0.5, str(run.path))

    reports = list(decided_reports(before))

    assert [(report["step"], report["eval/success"], report["done"]) for report in reports] == [
        (2, 0.1, False),
        (4, 0.3, True),
    ]
    assert not reports[-1]["finished"]
