"""Samples cut over ranks and micro-batches."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.training.learner.cases import sample
from training.learner.microbatches import microbatches
from training.rollouts.batch import split_over_ranks


@given(st.lists(st.integers(3, 40), min_size=0, max_size=30), st.integers(1, 4))
@settings(deadline=None)
def test_cutting_over_ranks_and_micro_batches_loses_and_doubles_nothing(lengths: list[int], world: int) -> None:
    samples = [sample(i, n) for i, n in enumerate(lengths)]
    shares = split_over_ranks(samples, world)
    assert sorted(s.token_ids_T for share in shares for s in share) == sorted(s.token_ids_T for s in samples)
    for share in shares:
        rows = microbatches(share, 64)
        assert sorted(i for row in rows for i in row.order) == list(range(len(share)))
        assert all(row.token_ids.numel() <= 64 for row in rows)


def test_a_sequence_over_the_budget_names_the_setting() -> None:
    with pytest.raises(ValueError, match="max_tokens_per_microbatch"):
        microbatches([sample(0, 50)], 40)
