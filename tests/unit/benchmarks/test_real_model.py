"""The recipe of an hour, for another time."""

from __future__ import annotations

import pytest

from benchmarks.real_model import CONFIG, RECIPE_MIN, START_MIN, scaled
from configs.training import TrainConfig


def test_the_hour_is_the_recipe_itself() -> None:
    config = TrainConfig.load(CONFIG)
    assert scaled(config, RECIPE_MIN) == config


def test_half_of_the_time_without_the_start_has_half_of_the_steps_and_games() -> None:
    config = TrainConfig.load(CONFIG, ["steps=30", "evaluation.episodes=200"])
    half = scaled(config, START_MIN + (RECIPE_MIN - START_MIN) / 2)
    assert (half.steps, half.evaluation.episodes) == (15, 100)
    assert (half.warmstart, half.rollout) == (config.warmstart, config.rollout)


@pytest.mark.parametrize("minutes", [0.5, START_MIN, 3.0])
def test_a_time_that_is_too_short_still_takes_every_kind_of_step(minutes: float) -> None:
    few = scaled(TrainConfig.load(CONFIG), minutes)
    assert min(few.steps, few.evaluation.episodes) >= 2
