"""Each number of an update's record that cannot be healthy raises its own alarm."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from training.checks.agreement import FLOAT32, Fit
from training.checks.updates import UpdateRecord, update_alarms

HEALTHY = UpdateRecord(
    fit=Fit(1e-5, 1e-6, 1e-7, 1e-7),
    tokens=120.0,
    expected_tokens=120,
    unit_gradients=(1.0, 1.004),
    wrong_ratios=0.0,
    wrong_slope=0.0,
    wrong_kl_slope=1e-7,
    reference_moved=False,
    optimizer_steps=6,
    updates=6,
)


def test_a_healthy_update_raises_none() -> None:
    assert list(update_alarms(HEALTHY, FLOAT32)) == []
    assert list(update_alarms(replace(HEALTHY, fit=None), FLOAT32)) == []


@pytest.mark.parametrize(
    ("change", "check"),
    [
        ({"fit": Fit(0.5, 0.1, 0.0, 0.1)}, "agreement"),
        ({"tokens": 119.0}, "trained tokens"),
        ({"unit_gradients": (1.0, 2.0)}, "unit gradient"),
        ({"unit_gradients": (0.5,)}, "unit gradient"),
        ({"unit_gradients": (float("nan"),)}, "unit gradient"),
        ({"wrong_ratios": 3.0}, "first ratio"),
        ({"wrong_slope": 0.01}, "loss slope"),
        ({"wrong_kl_slope": 0.01}, "kl slope"),
        ({"reference_moved": True}, "reference"),
        ({"optimizer_steps": 0}, "optimizer state"),
    ],
)
def test_a_wrong_number_raises_the_alarm_of_its_check(change: dict[str, Any], check: str) -> None:
    assert [alarm.check for alarm in update_alarms(replace(HEALTHY, **change), FLOAT32)] == [check]
