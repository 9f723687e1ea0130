"""The whole loss of a micro-batch, by hand."""

from __future__ import annotations

import pytest
import torch

from configs.training import AlgorithmConfig
from training.algorithms.losses import LossInputs
from training.algorithms.objective import SUMS, objective
from training.types import Denominators

ZEROS, ONES = torch.zeros(1, 2), torch.ones(1, 2)


def inputs(learner_logp: torch.Tensor) -> LossInputs:
    return LossInputs(learner_logp, ZEROS, torch.tensor([2.0]), ONES, ONES)


def test_entropy_is_a_bonus_and_kl_a_cost_per_token_of_the_whole_batch() -> None:
    config = AlgorithmConfig(loss="dapo", entropy_coef=0.5, kl_coef=0.1)
    # Ratios 1, advantage 2, four tokens in the whole batch: -(2 + 2) / 4; entropy 0.3 + 0.1; KL of d = 1 twice: e - 2
    share = objective(inputs(ZEROS), torch.tensor([[0.3, 0.1]]), ONES, Denominators(4, 2), config)
    kl = 2 * (2.718281828 - 2)
    assert float(share.loss) == pytest.approx(-1 - 0.5 * 0.4 / 4 + 0.1 * kl / 4)
    sums = dict(zip(SUMS, share.sums.tolist(), strict=True))
    expected = {"loss": -1.0, "entropy": 0.4, "clipped": 0.0, "kl": kl, "bounded": 0.0, "tokens": 2.0}
    assert sums == pytest.approx(expected)


def test_clipped_and_bounded_tokens_are_counted() -> None:
    share = objective(inputs(torch.tensor([[0.5, 30.0]])), ZEROS, None, Denominators(2, 1), AlgorithmConfig())
    sums = dict(zip(SUMS, share.sums.tolist(), strict=True))
    assert sums["clipped"] == 2
    assert sums["bounded"] == 1


def test_in_gspo_the_tokens_of_a_clipped_sequence_are_counted() -> None:
    config = AlgorithmConfig(loss="gspo")
    for ratios, clipped in (([0.5, 2.0], 0), ([0.5, 2.1], 2)):  # the geometric means are 1 and 1.02
        share = objective(inputs(torch.tensor([ratios]).log()), ZEROS, None, Denominators(2, 1), config)
        assert dict(zip(SUMS, share.sums.tolist(), strict=True))["clipped"] == clipped
