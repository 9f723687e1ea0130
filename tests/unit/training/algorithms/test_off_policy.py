"""Off-policy corrections."""

from __future__ import annotations

import pytest
import torch

from configs.training import AlgorithmConfig
from training.algorithms.losses import LOSSES, LossInputs, kl_to_reference
from training.algorithms.off_policy import MAX_LOG_RATIO, Drift, behaviour, bounded_exp, off_policy_weight
from training.types import Denominators


def test_off_policy_corrections_by_hand() -> None:
    learner, sampler = torch.log(torch.tensor([[3.0, 1.0, 0.1]])), torch.zeros(1, 3)
    mask = torch.ones(1, 3)

    def weights(kind: str) -> list[float]:
        config = AlgorithmConfig(off_policy=kind)  # type: ignore[arg-type]
        return off_policy_weight(learner, sampler, mask, config)[0].tolist()

    assert weights("none") == [1, 1, 1]
    assert weights("tis") == pytest.approx([2.0, 1.0, 0.1])
    assert weights("icepop") == pytest.approx([0.0, 1.0, 0.0])
    assert weights("sequence_mask") == [1, 1, 1]  # geometric mean 0.67 lies within 0.5 .. 2
    assert float(kl_to_reference(learner, learner, mask)) == 0


@pytest.mark.parametrize("kind", ["tis", "icepop", "sequence_mask"])
def test_with_a_correction_ratios_start_at_one_and_only_the_weight_knows_the_sampler(kind: str) -> None:
    learner, sampler, mask = torch.log(torch.tensor([[1.2]])), torch.zeros(1, 1), torch.ones(1, 1)
    before = behaviour(learner.requires_grad_(), sampler, mask, AlgorithmConfig(off_policy=kind))  # type: ignore[arg-type]
    assert torch.equal(before.logp, learner)
    assert not before.logp.requires_grad
    assert float(before.weight) == pytest.approx(1.0 if kind == "sequence_mask" else 1.2)


def test_without_a_correction_the_sampler_is_the_behaviour_policy_of_a_single_update() -> None:
    learner, sampler, mask = torch.full((1, 1), -1.0), torch.full((1, 1), -2.0), torch.ones(1, 1)
    assert torch.equal(behaviour(learner, sampler, mask, AlgorithmConfig(updates_per_batch=1)).logp, sampler)
    assert torch.equal(behaviour(learner, sampler, mask, AlgorithmConfig(updates_per_batch=2)).logp, learner)


@pytest.mark.parametrize("name", list(LOSSES))
def test_a_token_left_out_has_no_gradient_however_far_off_it_is(name: str) -> None:
    # The second token's ratio is infinite: 0 * inf would make everything NaN.
    learner = torch.tensor([[-1.0, -0.5]]).requires_grad_()
    x = LossInputs(
        learner_logp=learner,
        behaviour_logp=torch.tensor([[-1.0, -1e4]]),
        advantage=torch.tensor([-1.0]),
        mask=torch.ones(1, 2),
        weight=torch.tensor([[1.0, 0.0]]),
    )
    loss = LOSSES[name](x, Denominators(2, 1), AlgorithmConfig())
    loss.backward()
    assert loss.isfinite()
    assert learner.grad is not None
    assert learner.grad.isfinite().all()
    assert learner.grad[0, 0] != 0
    assert learner.grad[0, 1] == 0


def test_the_kl_estimate_stays_finite_where_the_policies_are_far_apart() -> None:
    learner = torch.tensor([[-120.0, -1.0]]).requires_grad_()
    kl = kl_to_reference(learner, torch.tensor([[-0.1, -1.5]]), torch.ones(1, 2))
    kl.backward()
    assert kl.isfinite()
    assert learner.grad is not None
    assert learner.grad.isfinite().all()
    # d = -0.5: d/d(learner) of exp(d) - d - 1 is 1 - exp(d)
    assert float(learner.grad[0, 1]) == pytest.approx(1 - 0.60653066)


def test_a_bounded_ratio_is_exact_inside_its_bounds() -> None:
    log_ratio = torch.tensor([-MAX_LOG_RATIO, -1.0, 0.0, MAX_LOG_RATIO])
    assert torch.equal(bounded_exp(log_ratio), torch.exp(log_ratio))
    assert torch.equal(bounded_exp(torch.tensor([500.0, -500.0])), torch.exp(torch.tensor([20.0, -20.0])))


def test_the_drift_adds_up_over_micro_batches() -> None:
    zeros, mask = torch.zeros(1, 2), torch.tensor([[1.0, 0.0]])
    drift = Drift().with_tokens(zeros + 0.5, zeros, mask).with_tokens(zeros - 0.25, zeros, mask)
    assert drift == Drift(total=0.75, largest=0.5)
