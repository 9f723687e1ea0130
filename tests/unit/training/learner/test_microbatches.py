"""Samples cut over ranks and micro-batches."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.training.learner.cases import sample
from training.learner.microbatches import collate, microbatches, padding_microbatch
from training.rollouts.batch import split_over_ranks
from training.types import Sample


@given(st.lists(st.integers(3, 40), min_size=0, max_size=30), st.integers(1, 4))
def test_cutting_over_ranks_and_micro_batches_loses_and_doubles_nothing(lengths: list[int], world: int) -> None:
    samples = [sample(i, n) for i, n in enumerate(lengths)]
    shares = split_over_ranks(samples, world)
    assert sorted(s.token_ids_T for share in shares for s in share) == sorted(s.token_ids_T for s in samples)
    for share in shares:
        parts = microbatches(share, 64)
        assert sorted(i for part in parts for i in part.order) == list(range(len(share)))
        assert all(part.token_ids.numel() <= 64 for part in parts)
        twice = microbatches([*share, *share], 64, twins=True)
        assert sorted(i for part in twice for i in part.order) == list(range(2 * len(share)))
        assert all(part.distinct()[0].numel() <= 64 for part in twice)


def test_a_sequence_over_the_budget_names_the_setting() -> None:
    with pytest.raises(ValueError, match="max_tokens_per_microbatch"):
        microbatches([sample(0, 50)], 40)


def test_sequences_are_padded_on_the_right_with_nothing_chosen() -> None:
    long = Sample((5, 6, 8, 2), (0, 0, 1, 1), (0.0, 0.0, -0.5, -0.25), 0.5)
    short = Sample((5, 9), (0, 1), (0.0, -0.75), -0.5)
    part = collate([long, short], (3, 0))
    assert part.token_ids.tolist() == [[5, 6, 8, 2], [5, 9, 0, 0]]
    assert part.mask.tolist() == [[0, 0, 1, 1], [0, 1, 0, 0]]
    assert part.sampler_logp.tolist() == [[0, 0, -0.5, -0.25], [0, -0.75, 0, 0]]
    assert part.advantage.tolist() == [0.5, -0.5]
    assert part.order == (3, 0)


def test_each_kind_of_beginning_has_one_example() -> None:
    rows = [(1, 2, 3, 9), (1, 2, 4, 9), (5, 6, 7, 9), (1, 2, 8, 9)]
    part = collate([Sample(ids, (0, 0, 0, 1), (0.0, 0.0, 0.0, -1.0), 1.0) for ids in rows], shared=2)
    assert part.beginnings is not None
    assert part.token_ids[part.beginnings.alike.examples, :2].tolist() == [[1, 2], [5, 6]]
    assert part.beginnings.alike.kinds.tolist() == [0, 0, 1, 0]


def test_equal_sequences_are_computed_once_unless_other_tokens_were_chosen() -> None:
    turn, longer = (1, 2, 3, 9), (1, 2, 3, 9, 4)
    rows = [(turn, (0, 0, 1, 1)), (longer, (0, 0, 0, 0, 1)), (turn, (0, 0, 1, 1)), (turn, (0, 0, 0, 1))]
    part = collate([Sample(ids, mask, (-1.0,) * len(ids), 1.0) for ids, mask in rows], twins=True, shared=1)
    token_ids, mask = part.distinct()
    assert token_ids.tolist() == [[1, 2, 3, 9, 0], [1, 2, 3, 9, 4], [1, 2, 3, 9, 0]]
    assert mask.tolist() == [[0, 0, 1, 1, 0], [0, 0, 0, 0, 1], [0, 0, 0, 1, 0]]
    assert part.of_each(torch.tensor([5, 6, 7])).tolist() == [5, 6, 5, 7]
    assert part.beginnings is not None
    assert part.beginnings.alike.kinds.tolist() == [0, 0, 0], "of what is computed"


def test_sequences_without_an_equal_are_computed_in_their_order() -> None:
    part = collate([sample(i, 5) for i in range(3)], twins=True)
    assert part.twins is None
    assert part.distinct()[0] is part.token_ids


def test_a_padding_micro_batch_chooses_nothing() -> None:
    assert padding_microbatch().mask.sum() == 0


def test_advantages_of_tokens_and_of_sequences_stand_in_one_micro_batch() -> None:
    turns = Sample((5, 8, 6, 2), (0, 1, 0, 1), (0.0, -0.5, 0.0, -0.25), (0.5, 0.5, -1.0, -1.0))
    whole = Sample((5, 9), (0, 1), (0.0, -0.75), -0.5)
    assert collate([turns, whole]).advantage.tolist() == [[0.5, 0.5, -1.0, -1.0], [-0.5, -0.5, 0.0, 0.0]]
    with pytest.raises(ValueError, match="must be finite"):
        collate([Sample((5, 9), (0, 1), (0.0, -0.75), (0.0, float("nan")))])
