"""Beginnings that sequences have in common are computed once; nothing else changes."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.training.learner.cases import sample, siblings
from training.learner.prefixes import first_chosen, parts

GROUPS = st.lists(st.tuples(st.integers(1, 20), st.lists(st.integers(1, 12), min_size=1, max_size=6)), max_size=6)


@given(GROUPS, st.integers(32, 200), st.booleans(), st.booleans())
def test_every_sequence_is_in_one_part_and_shares_only_what_is_alike_and_not_chosen(
    groups: list[tuple[int, list[int]]], budget: int, twins: bool, beginnings: bool
) -> None:
    samples = [each for seed, (prompt, answers) in enumerate(groups) for each in siblings(seed, prompt, answers)]
    found = parts(samples, budget, twins, beginnings)
    assert sorted(i for part in found for i in part.members) == list(range(len(samples)))
    for part in found:
        assert part.cost <= budget
        assert all(part.shared == 0 or part.shared < first_chosen(samples[i]) for i in part.members)


def test_a_prompt_of_eight_siblings_counts_once() -> None:
    samples = siblings(0, 31, [32] * 8)
    (part,) = parts(samples, 400, twins=False, beginnings=True)
    assert part.shared == 30, "the prompt but its last token, which predicts the first of the answer"
    assert 30 + 8 * 33 <= part.cost < 0.7 * 8 * 63
    assert len(parts(samples, 400, twins=False, beginnings=False)) == 2


def test_groups_whose_prompts_have_one_length_share_a_part() -> None:
    samples = [each for seed in range(3) for each in siblings(seed, 20, [4] * 4)]
    random.Random(0).shuffle(samples)
    (part,) = parts(samples, 200, twins=False, beginnings=True)
    assert part.shared == 19


def test_nothing_is_shared_where_sequences_begin_differently_or_it_would_gain_little() -> None:
    assert {part.shared for part in parts([sample(i, 12) for i in range(6)], 64, twins=False, beginnings=True)} == {0}
    assert {part.shared for part in parts(siblings(0, 3, [40, 40]), 100, twins=False, beginnings=True)} == {0}


def test_equal_turns_cost_what_one_of_them_does() -> None:
    samples = [*siblings(0, 17, [4, 4]), *siblings(1, 17, [4])]
    (part,) = parts(samples * 8, 3 * 21, twins=True, beginnings=False)
    assert part.cost == 3 * 21
    assert sorted(part.members) == list(range(3 * 8))
    assert len(parts(samples * 8, 3 * 21, twins=False, beginnings=False)) == 8


def test_answers_of_very_different_lengths_are_not_padded_for_a_short_prompt() -> None:
    samples = [each for seed in range(4) for each in siblings(seed, 4, [2, 60])]
    assert sum(part.cost for part in parts(samples, 256, twins=False, beginnings=True)) == pytest.approx(4 * 6 + 4 * 64)
