"""The whole loss of a micro-batch, by hand."""

from __future__ import annotations

import pytest
import torch

from configs.training import AlgorithmConfig
from training.algorithms import objective as module
from training.algorithms.losses import LOSSES, LossInputs
from training.algorithms.objective import SUMS, Slopes, objective
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


def slopes(loss: str, reference: torch.Tensor | None = None) -> Slopes:
    logp, sampler = torch.tensor([[-0.5, -2.0], [-1.0, -3.0]]), torch.tensor([[-0.6, -1.8], [-1.0, -2.0]])
    x = LossInputs(logp, sampler, torch.tensor([2.0, -1.0]), torch.ones(2, 2), torch.ones(2, 2))
    config = AlgorithmConfig(loss=loss, kl_coef=0.1, clip_low=5.0, clip_high=5.0)  # type: ignore[arg-type]
    found = objective(x, torch.zeros(2, 2), reference, Denominators(4, 2), config, slopes=True).slopes
    assert found is not None
    return found


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_pushes_tokens_along_their_advantages_and_towards_the_reference(loss: str) -> None:
    found = slopes(loss, torch.tensor([[-0.4, -2.5], [-1.2, -1.0]]))
    assert float(found.wrong_policy) == 0
    assert float(found.policy) > 0
    assert float(found.wrong_kl) <= float(found.noise)
    assert float(found.kl) > 0


def test_a_sign_that_is_wrong_shows_in_the_slopes(monkeypatch: pytest.MonkeyPatch) -> None:
    right = LOSSES["dapo"]
    monkeypatch.setitem(LOSSES, "dapo", lambda *given: -right(*given))
    kl = module.kl_to_reference
    monkeypatch.setattr(module, "kl_to_reference", lambda *given: -kl(*given))
    found = slopes("dapo", torch.tensor([[-0.4, -2.5], [-1.2, -1.0]]))
    assert float(found.wrong_policy) == float(found.policy) > 0
    assert float(found.wrong_kl) == pytest.approx(float(found.kl))
