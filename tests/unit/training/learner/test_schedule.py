"""Learning rates."""

from __future__ import annotations

import pytest

from configs.training import OptimizerConfig
from training.learner.schedule import learning_rate


def test_schedules_warm_up_and_end_where_they_say() -> None:
    config = OptimizerConfig(lr=1.0, warmup_steps=2, schedule="linear", final_lr_fraction=0.1)
    assert [round(learning_rate(config, step, 12), 3) for step in (0, 1, 2, 12)] == [0.5, 1.0, 1.0, 0.1]


def test_a_constant_schedule_stays_at_its_height_after_the_warm_up() -> None:
    config = OptimizerConfig(lr=0.5, warmup_steps=4, schedule="constant")
    assert [learning_rate(config, step, 10) for step in (0, 3, 4, 9, 50)] == [0.125, 0.5, 0.5, 0.5, 0.5]


def test_a_cosine_passes_its_middle_half_way_and_stays_at_its_end() -> None:
    config = OptimizerConfig(lr=1.0, warmup_steps=0, schedule="cosine", final_lr_fraction=0.2)
    rates = [learning_rate(config, step, 10) for step in (0, 5, 10, 20)]
    assert rates == pytest.approx([1.0, 0.6, 0.2, 0.2])


def test_a_run_as_long_as_its_warm_up_has_a_learning_rate() -> None:
    config = OptimizerConfig(lr=1.0, warmup_steps=5, schedule="linear")
    assert learning_rate(config, 5, 5) == 1.0
