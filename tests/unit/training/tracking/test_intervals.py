"""Intervals."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.tracking.intervals import mean, paired_difference, proportion


def test_intervals_by_hand() -> None:
    assert str(proportion(0, 10)) == "0.000 [0.000, 0.278]"
    assert str(proportion(10, 10)) == "1.000 [0.722, 1.000]"
    assert str(paired_difference([0, 1], [1, 1]).value) == "0.5"
    # 1, 2, 3: standard deviation 1, half width 1.96 / sqrt(3)
    assert str(mean([1.0, 2.0, 3.0])) == "2.000 [0.868, 3.132]"


def test_one_value_has_an_interval_without_width() -> None:
    assert (mean([2.0]).low, mean([2.0]).high) == (2.0, 2.0)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_of_a_share_holds_it_and_stays_between_zero_and_one(counts: tuple[int, int]) -> None:
    share = proportion(*counts)
    assert 0.0 <= share.low <= share.value + 1e-12
    assert share.value - 1e-12 <= share.high <= 1.0


def test_the_interval_of_a_share_holds_the_truth_in_about_95_of_100_samples() -> None:
    rng, truth, held = random.Random(0), 0.9, 0
    for _ in range(1000):
        estimate = proportion(sum(rng.random() < truth for _ in range(50)), 50)
        held += estimate.low <= truth <= estimate.high
    assert 930 <= held <= 980


def test_pairing_takes_the_spread_of_the_situations_out() -> None:
    first = [0.0, 10.0, 20.0, 30.0]
    second = [value + 1.0 for value in first]
    assert str(paired_difference(first, second)) == "1.000 [1.000, 1.000]"


def test_what_cannot_be_estimated_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one trial"):
        proportion(0, 0)
    with pytest.raises(ValueError, match="pairs need equal lengths, got 1 and 2"):
        paired_difference([1.0], [1.0, 2.0])
