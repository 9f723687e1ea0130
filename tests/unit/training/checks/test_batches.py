"""Batches that are not what their groups say."""

from __future__ import annotations

import math

import pytest

from training.checks.batches import advantages_alarm, sizes_alarm, step_alarm


def test_a_group_that_lost_a_sibling_is_noticed() -> None:
    assert sizes_alarm([8, 8], 8) is None
    alarm = sizes_alarm([8, 7, 8], 8)
    assert alarm is not None
    assert "1 groups of the step" in alarm.message


@pytest.mark.parametrize("wrong", [[0.5, 0.5], [-0.5, 0.5], [0.5, math.nan]])
def test_an_advantage_of_another_return_is_noticed(wrong: list[float]) -> None:
    assert advantages_alarm([0.5, -0.5], [0.5, -0.5 + 1e-7]) is None
    alarm = advantages_alarm(wrong, [0.5, -0.5])
    assert alarm is not None
    assert alarm.check == "advantages"


def test_rollouts_and_learner_count_the_same_steps() -> None:
    assert step_alarm(7, 7) is None
    alarm = step_alarm(6, 7)
    assert alarm is not None
    assert "of step 6, the learner has done 7" in alarm.message
