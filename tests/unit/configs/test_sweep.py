"""A sweep is checked as a whole before its first trial starts."""

from __future__ import annotations

from typing import Any

import pytest

from configs.base import PACKAGE_DIR, ConfigError
from configs.sweep import SweepConfig, as_overrides, varied
from configs.training import TrainConfig

TRAIN = "configs/train/tictactoe_tiny.yaml"


def sweep(space: dict[str, Any], **fields: Any) -> SweepConfig:
    return SweepConfig.parse({"train": TRAIN, "space": space, **fields})


@pytest.mark.parametrize("file", sorted(PACKAGE_DIR.glob("sweep/*.yaml")), ids=lambda file: file.stem)
def test_the_space_of_every_shipped_sweep_fits_the_training_schema(file: Any) -> None:
    config = SweepConfig.load(file)

    assert config.resolve().evaluation.every_steps == config.report_every_steps


@pytest.mark.parametrize(
    ("key", "dimension", "advice"),
    [
        ("optimizr.lr", {"grid": [1e-3]}, "Did you mean 'optimizer'"),
        ("optimizer.l", {"grid": [1e-3]}, "Did you mean 'lr'"),
        ("optimizer.lr", {"grid": [1e-3, -1.0]}, "greater than 0"),
        ("optimizer.beta1", {"uniform": [0.5, 1.5]}, "less than 1"),
        ("algorithm.loss", {"choice": ["dapo", "ppo"]}, "'dapo'"),
        ("rollout.group_size", {"uniform": [4, 16]}, "use choice or grid"),
        ("steps", {"grid": [10, 20]}, "ASHA compares trials of one length"),
        ("evaluation.first_seed", {"grid": [0, 1]}, "same held-out situations"),
        ("serving.connect", {"choice": ["rayward"]}, "replicas of its own"),
    ],
)
def test_a_dimension_that_no_run_can_take_is_refused_with_advice(key: str, dimension: Any, advice: str) -> None:
    with pytest.raises(ConfigError, match=advice):
        sweep({key: dimension}).resolve()


@pytest.mark.parametrize(
    ("dimension", "advice"),
    [
        ({"gird": [1, 2]}, "Did you mean 'grid'"),
        ({}, "exactly one of choice, grid, uniform, loguniform; got none"),
        ({"grid": [1], "choice": [2]}, "got choice, grid"),
        ({"uniform": [2.0, 1.0]}, "lower bound 2 must be below"),
        ({"loguniform": [0.0, 1.0]}, "above 0"),
        ({"grid": []}, "at least 1 item"),
    ],
)
def test_a_dimension_that_means_nothing_is_refused(dimension: Any, advice: str) -> None:
    with pytest.raises(ConfigError, match=advice):
        sweep({"optimizer.lr": dimension})


def test_replicas_of_somebody_else_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"serving\.connect: each trial publishes"):
        sweep({"optimizer.lr": {"grid": [1e-3]}}, settings={"serving": {"connect": "rayward"}}).resolve()


def test_settings_are_laid_over_the_training_file_and_keep_the_rest_of_a_section() -> None:
    base = sweep({"optimizer.lr": {"grid": [1e-3]}}, settings={"steps": 7, "warmstart": {"steps": 9}}).resolve()

    untouched = TrainConfig.load("configs/train/tictactoe_tiny.yaml").warmstart.noise
    assert (base.steps, base.warmstart.steps, base.warmstart.noise) == (7, 9, untouched)


def test_a_wrong_setting_names_the_nearest_known_key() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'steps'"):
        sweep({"optimizer.lr": {"grid": [1e-3]}}, settings={"stepps": 7}).resolve()


def test_overrides_reach_settings_and_space_by_dotted_keys() -> None:
    config = SweepConfig.load(
        "configs/sweep/tictactoe_tiny.yaml",
        ["trials=2", "settings.optimizer.eps=1e-7", "space.optimizer.lr.grid=[0.1, 0.2, 0.3]"],
    )

    assert config.space["optimizer.lr"].grid == [0.1, 0.2, 0.3]
    assert config.trial_count == 6
    assert config.resolve().optimizer.eps == 1e-7


def test_a_drawn_value_arrives_in_the_run_as_it_was_drawn() -> None:
    base = sweep({"optimizer.lr": {"grid": [1e-3]}}).resolve()
    drawn = {"optimizer.lr": 1.2345678901234567e-05, "algorithm.loss": "gspo", "learner.torch_threads": None}

    run = varied(base, drawn)

    assert run.optimizer.lr == drawn["optimizer.lr"]
    assert (run.algorithm.loss, run.learner.torch_threads) == ("gspo", None)
    assert as_overrides({"env.kwargs": {"split": "train"}}) == ['env.kwargs={"split": "train"}']


def test_the_runs_are_written_below_the_folder_of_the_sweep_if_it_names_one() -> None:
    space = {"optimizer.lr": {"grid": [1e-3]}}

    assert sweep(space, storage_path="/data/x").resolve().storage_path == "/data/x"
    assert sweep(space, settings={"storage_path": "/data/y"}).resolve().storage_path == "/data/y"
