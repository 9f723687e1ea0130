"""What the learner minimises: policy loss, entropy bonus and KL term of one micro-batch. Pure.

loss = policy_loss - entropy_coef * mean entropy + kl_coef * mean KL(learner || reference); means over the chosen tokens
of the whole batch, so that the shares of micro-batches and ranks add up.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from configs.training import AlgorithmConfig
from training.algorithms.losses import LOSSES, LossInputs, kl_to_reference, outside_clip
from training.algorithms.off_policy import MAX_LOG_RATIO
from training.types import Denominators

ROUNDS = 1e-6  # relative error of a difference of two slopes in float32
SUMS = ("loss", "entropy", "clipped", "kl", "bounded", "tokens")


class Slopes(NamedTuple):
    """How a loss pushes the chosen tokens' log-probabilities: sums over tokens of |slope x distance|, of the part that
    pushes the wrong way and of all. The distance is the advantage for the policy loss, and for the KL term log p above
    the reference's. `noise` is what rounding may add to the wrong part of the KL term."""

    wrong_policy: Tensor
    policy: Tensor
    wrong_kl: Tensor
    kl: Tensor
    noise: Tensor


@dataclass(frozen=True)
class Objective:
    """Scalar loss with gradient, and `sums`: one float64 per name of SUMS, without gradient, to be added up. `slopes`
    where they were asked for."""

    loss: Tensor
    sums: Tensor
    slopes: Slopes | None = None


def objective(
    x: LossInputs,
    entropy: Tensor,
    reference_logp: Tensor | None,
    whole: Denominators,
    config: AlgorithmConfig,
    slopes: bool = False,
) -> Objective:
    """`entropy` [B, T] is 0 where nothing was chosen; `reference_logp` [B, T] or None where there is no KL term."""
    terms = _terms(x, reference_logp, whole, config)
    entropy_sum, loss = (entropy * x.mask).sum(), terms.loss
    if config.entropy_coef:
        loss = loss - config.entropy_coef * entropy_sum / whole.tokens
    with torch.no_grad():
        clipped = outside_clip(x, config)
        bounded = x.log_ratio.abs() > MAX_LOG_RATIO
        if reference_logp is not None:
            bounded = bounded | ((reference_logp - x.learner_logp).abs() > MAX_LOG_RATIO)
        counts = (clipped * x.mask).sum(), terms.kl, (bounded * x.mask).sum(), x.mask.sum()
        totals = torch.stack([part.detach().double() for part in (terms.policy_loss, entropy_sum, *counts)]).cpu()
    return Objective(loss, totals, slopes_of(x, reference_logp, whole, config) if slopes else None)


class _Terms(NamedTuple):
    """What depends on the tokens' log-probabilities: `loss` is the policy loss and the weighted KL term."""

    policy_loss: Tensor
    kl: Tensor
    loss: Tensor


def _terms(x: LossInputs, reference_logp: Tensor | None, whole: Denominators, config: AlgorithmConfig) -> _Terms:
    policy_loss = LOSSES[config.loss](x, whole, config)
    if reference_logp is None:
        return _Terms(policy_loss, torch.zeros_like(policy_loss), policy_loss)
    kl = kl_to_reference(x.learner_logp, reference_logp, x.mask)
    return _Terms(policy_loss, kl, policy_loss + config.kl_coef * kl / whole.tokens)


def slopes_of(x: LossInputs, reference_logp: Tensor | None, whole: Denominators, config: AlgorithmConfig) -> Slopes:
    """From the gradient of the finished loss with respect to the tokens' log-probabilities alone: whatever its formula,
    it may not lower a token with a positive advantage, nor raise one that stands above the reference."""
    with torch.enable_grad():
        leaf = x.learner_logp.detach().requires_grad_()
        terms = _terms(replace(x, learner_logp=leaf), reference_logp, whole, config)
        (by_policy,) = torch.autograd.grad(terms.policy_loss, leaf, retain_graph=True)
        (by_all,) = torch.autograd.grad(terms.loss, leaf)
    push = by_policy * x.token_advantage
    zero = torch.zeros((), device=push.device)
    if reference_logp is None:
        return Slopes(push.clamp(min=0).sum(), push.abs().sum(), zero, zero, zero)
    above = torch.where(x.mask > 0, leaf.detach() - reference_logp, 0.0)
    pull, size = (by_all - by_policy) * above, (by_policy.abs() + by_all.abs()) * above.abs()
    return Slopes(
        push.clamp(min=0).sum(), push.abs().sum(), (-pull).clamp(min=0).sum(), pull.abs().sum(), ROUNDS * size.sum()
    )
