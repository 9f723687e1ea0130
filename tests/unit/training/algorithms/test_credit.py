"""How the rewards of turns become advantages of turns: by hand, and what holds for all of them."""

from __future__ import annotations

import doctest
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.base import ConfigError
from configs.training import AlgorithmConfig, TrainConfig
from training.algorithms import credit
from training.algorithms.advantages import group_centered, group_normalized, leave_one_out
from training.algorithms.credit import CREDITS, Earnings, credited, numbers, rewards_to_go

REWARD = st.integers(-8, 8).map(lambda eighths: eighths / 8)  # sums of them are exact
SIBLINGS = st.lists(st.lists(st.tuples(REWARD, st.integers(0, 3)), min_size=1, max_size=5), min_size=2, max_size=5)


def earned(*rewards_GH: list[float], states_GH: list[list[int]] | None = None) -> Earnings:
    return Earnings(
        [sum(each) for each in rewards_GH], rewards_GH, states_GH or [[0] * len(each) for each in rewards_GH]
    )


def of_turns(name: str, earnings: Earnings, gamma: float = 1.0) -> list[tuple[float, ...]]:
    given = CREDITS[name](earnings, group_centered, gamma)
    return [(each,) if isinstance(each, float) else each for each in given]


def test_the_doctests_hold() -> None:
    assert (done := doctest.testmod(credit)).failed == 0
    assert done.attempted >= 8


def test_rewards_to_go_by_hand() -> None:
    assert rewards_to_go([0.0, 0.0, 1.0], 0.5) == [0.25, 0.5, 1.0]
    assert rewards_to_go([1.0, -1.0], 1.0) == [0.0, -1.0]


def test_a_turn_is_compared_with_the_siblings_turns_at_its_place() -> None:
    # To go: [3, 1], [1, 1, 1], [2]. Place 0: 3, 1, 2, mean 2. Place 1: 1 and 1. Place 2: one alone.
    given = of_turns("turn_to_go", earned([2.0, 1.0], [0.0, 0.0, 1.0], [2.0]))
    assert given == [(1.0, 0.0), (-1.0, 0.0, 0.0), (0.0,)]


def test_a_later_reward_counts_less_for_an_earlier_turn() -> None:
    # To go with gamma 1/2: [0.5, 1], [0, 0]; means 0.25 and 0.5
    assert of_turns("turn_to_go", earned([0.0, 1.0], [0.0, 0.0]), 0.5) == [(0.25, 0.5), (-0.25, -0.5)]


def test_a_turn_is_compared_with_all_that_saw_the_same() -> None:
    # Returns 1 and 0: 0.5 and -0.5. State 7 came up three times, with 1, 1 and 0 to go: mean 2/3. State 9 once.
    given = of_turns("anchor_state", earned([0.0, 0.0, 1.0], [0.0], states_GH=[[7, 7, 9], [7]]))
    assert given[0] == pytest.approx((0.5 + 1 / 3, 0.5 + 1 / 3, 0.5))
    assert given[1] == pytest.approx((-0.5 - 2 / 3,))


def test_the_function_of_the_settings_compares() -> None:
    two = earned([0.0, 2.0], [0.0, 0.0])
    for name, expected in (("leave_one_out", 2.0), ("group_centered", 1.0), ("group_normalized", 1 / 1.0001)):
        (first, *_), _ = credited(two, AlgorithmConfig(credit="turn_to_go", advantage=name))
        assert first == pytest.approx(expected)


@given(SIBLINGS, st.sampled_from([group_centered, group_normalized, leave_one_out]))
def test_by_default_the_advantages_are_exactly_those_of_the_returns(
    siblings: list[list[tuple[float, int]]], compare: credit.Compare
) -> None:
    earnings = earned(*[[reward for reward, _ in turns] for turns in siblings])
    assert CREDITS["episode"](earnings, compare, 1.0) == compare(earnings.returns_G)
    assert AlgorithmConfig().credit == "episode"


@given(SIBLINGS, st.sampled_from(sorted(CREDITS)), st.sampled_from([1.0, 0.5]))
def test_every_turn_has_a_finite_advantage(siblings: list[list[tuple[float, int]]], name: str, gamma: float) -> None:
    earnings = earned(*[[r for r, _ in t] for t in siblings], states_GH=[[s for _, s in t] for t in siblings])
    given_G = CREDITS[name](earnings, group_centered, gamma)
    assert all(math.isfinite(value) for value in numbers(given_G))
    lengths = [len(each) for each in given_G if not isinstance(each, float)]
    assert lengths == ([] if name == "episode" else [len(turns) for turns in siblings])


@given(st.lists(REWARD, min_size=1, max_size=5), st.sampled_from(["turn_to_go", "anchor_state"]))
def test_siblings_that_did_the_same_have_no_advantages_at_all(rewards: list[float], name: str) -> None:
    """Exactly 0, with three equal values whose mean rounding may miss."""
    equals = earned(*[[reward / 10 for reward in rewards]] * 3, states_GH=[[*range(len(rewards))]] * 3)
    assert not any(numbers(CREDITS[name](equals, group_centered, 0.7)))


@given(SIBLINGS, st.sampled_from([1.0, 0.5]))
def test_the_advantages_of_the_turns_at_one_place_add_up_to_nothing(
    siblings: list[list[tuple[float, int]]], gamma: float
) -> None:
    given_G = of_turns("turn_to_go", earned(*[[r for r, _ in t] for t in siblings]), gamma)
    for place in range(max(map(len, given_G))):
        assert sum(each[place] for each in given_G if place < len(each)) == pytest.approx(0, abs=1e-9)


@given(SIBLINGS, st.integers(0, 4), REWARD)
def test_what_was_paid_before_a_turn_does_not_change_its_advantage(
    siblings: list[list[tuple[float, int]]], at: int, other: float
) -> None:
    before = [[r for r, _ in turns] for turns in siblings]
    at = at % len(before[0])
    after = [[*before[0][:at], other, *before[0][at + 1 :]], *before[1:]]
    ours, theirs = of_turns("turn_to_go", earned(*before)), of_turns("turn_to_go", earned(*after))
    assert ours[0][at + 1 :] == theirs[0][at + 1 :]


@given(st.lists(REWARD, min_size=2, max_size=6))
def test_episodes_of_one_turn_have_the_advantages_of_their_returns(rewards: list[float]) -> None:
    one_each = earned(*[[reward] for reward in rewards])
    expected = group_centered(rewards)
    assert numbers(CREDITS["turn_to_go"](one_each, group_centered, 1.0)) == pytest.approx(expected)
    twice = numbers(CREDITS["anchor_state"](one_each, group_centered, 1.0))  # all began alike: both comparisons are one
    assert twice == pytest.approx([2 * value for value in expected])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["algorithm.gamma=0.9"], "gamma discounts"),
        (["algorithm.credit=turn_to_go", "algorithm.loss=gspo"], "one ratio"),
        (["algorithm.credit=turns"], "algorithm.credit"),
    ],
)
def test_settings_that_do_not_fit_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainConfig.parse({}, overrides)


def test_sequences_get_the_advantages_of_their_turns() -> None:
    turns = tuple(float(n) for n in range(6))
    assert credit.of_sequences(turns, [2, 1, 3]) == [(0.0, 1.0), 2.0, (3.0, 4.0, 5.0)]
    assert credit.divided((1.0, 3.0), 2) == (0.5, 1.5)
