"""A changed setting of a resumed run is applied and kept, or refused with the reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from configs.base import ConfigError
from configs.training import TrainConfig
from deployments.storage import runs
from training.run.resume import FIXED, check_changes, keep_changes


@pytest.fixture
def run(tmp_path: Path) -> runs.RunFolder:
    return runs.create(TrainConfig.parse({"storage_path": str(tmp_path), "steps": 10}))


def test_a_change_is_known_to_the_next_resume(run: runs.RunFolder) -> None:
    """It was forgotten: the second resume went on with the first configuration."""
    config = run.load_config(["steps=20", "optimizer.weight_decay=0.1"])
    check_changes(run, config)
    keep_changes(run, config)
    again = run.load_config()
    assert (again.steps, again.optimizer.weight_decay) == (20, 0.1)


def test_a_resume_without_changes_leaves_the_file_as_it_is(run: runs.RunFolder) -> None:
    before = run.config.stat().st_mtime_ns
    keep_changes(run, run.load_config())
    assert run.config.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    "change",
    [
        "model.source=/models/other",
        "model.tiny.layers=9",
        "warmstart.enabled=true",
        "seed=1",
        "learner.deepspeed_stage=3",
        "name=x",
        "experimenter=x",
        "experiment=x",
        "storage_path=/elsewhere",
    ],
)
def test_what_a_resume_cannot_apply_is_refused_with_the_reason(run: runs.RunFolder, change: str) -> None:
    config = run.load_config([change, "steps=20"])
    with pytest.raises(ConfigError, match=r"cannot change from .* in a resumed run: .*a new run"):
        check_changes(run, config)


def test_another_number_of_learner_processes_is_refused_before_a_checkpoint_is_called_damaged(
    run: runs.RunFolder,
) -> None:
    with pytest.raises(ConfigError, match=r"learner\.workers cannot change from 1 to 2 in a resumed run: a checkpoint"):
        check_changes(run, run.load_config(["learner.workers=2", "learner.sharding=ddp"]))


def test_a_change_may_mend_what_would_be_refused_by_now(run: runs.RunFolder) -> None:
    stored = json.loads(run.config.read_text())
    stored["learner"]["max_tokens_per_microbatch"] = 16
    run.config.write_text(json.dumps(stored))
    config = run.load_config(["learner.max_tokens_per_microbatch=16384"])
    check_changes(run, config)
    keep_changes(run, config)
    assert run.load_config() == config


def test_every_fixed_setting_exists() -> None:
    config = TrainConfig().dump()
    for key in FIXED:
        section, _, name = key.partition(".")
        assert name in config[section] if name else section in config
