"""Intervals."""

from __future__ import annotations

from training.tracking.intervals import paired_difference, proportion


def test_intervals_by_hand() -> None:
    assert str(proportion(0, 10)) == "0.000 [0.000, 0.278]"
    assert str(paired_difference([0, 1], [1, 1]).value) == "0.5"
