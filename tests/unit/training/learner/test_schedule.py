"""Learning rates."""

from __future__ import annotations

from configs.training import OptimizerConfig
from training.learner.schedule import learning_rate


def test_schedules_warm_up_and_end_where_they_say() -> None:
    config = OptimizerConfig(lr=1.0, warmup_steps=2, schedule="linear", final_lr_fraction=0.1)
    assert [round(learning_rate(config, step, 12), 3) for step in (0, 1, 2, 12)] == [0.5, 1.0, 1.0, 0.1]
