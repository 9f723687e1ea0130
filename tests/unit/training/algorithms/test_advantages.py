"""Advantages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.algorithms.advantages import ADVANTAGES, group_centered, group_normalized, leave_one_out


def test_advantages_by_hand() -> None:
    assert group_centered([1.0, 1.0, 1.0]) == [0.0, 0.0, 0.0]
    assert leave_one_out([3.0, 0.0]) == [3.0, -3.0]
    assert group_normalized([2.0, 0.0]) == pytest.approx([1 / 1.0001, -1 / 1.0001])


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=16))
def test_advantages_sum_to_zero(returns: list[float]) -> None:
    assert all(abs(sum(advantage(returns))) < 1e-6 * 16 * 10 / 1e-4 for advantage in ADVANTAGES.values())
    assert sum(group_centered(returns)) == pytest.approx(0, abs=1e-9)
