"""What the learner minimises: policy loss, entropy bonus and KL term of one micro-batch. Pure.

loss = policy_loss - entropy_coef * mean entropy + kl_coef * mean KL(learner || reference); means over the chosen tokens
of the whole batch, so that the shares of micro-batches and ranks add up.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from configs.training import AlgorithmConfig
from training.algorithms.losses import LOSSES, LossInputs, kl_to_reference, outside_clip
from training.algorithms.off_policy import MAX_LOG_RATIO
from training.types import Denominators

SUMS = ("loss", "entropy", "clipped", "kl", "bounded", "tokens")


@dataclass(frozen=True)
class Objective:
    """Scalar loss with gradient, and `sums`: one float64 per name of SUMS, without gradient, to be added up."""

    loss: Tensor
    sums: Tensor


def objective(
    x: LossInputs, entropy: Tensor, reference_logp: Tensor | None, whole: Denominators, config: AlgorithmConfig
) -> Objective:
    """`entropy` [B, T] is 0 where nothing was chosen; `reference_logp` [B, T] or None where there is no KL term."""
    policy_loss = LOSSES[config.loss](x, whole, config)
    entropy_sum, loss = (entropy * x.mask).sum(), policy_loss
    if config.entropy_coef:
        loss = loss - config.entropy_coef * entropy_sum / whole.tokens
    kl = torch.zeros_like(entropy_sum)
    if reference_logp is not None:
        kl = kl_to_reference(x.learner_logp, reference_logp, x.mask)
        loss = loss + config.kl_coef * kl / whole.tokens
    with torch.no_grad():
        clipped = outside_clip(x, config)
        bounded = x.log_ratio.abs() > MAX_LOG_RATIO
        if reference_logp is not None:
            bounded = bounded | ((reference_logp - x.learner_logp).abs() > MAX_LOG_RATIO)
        sums = [policy_loss, entropy_sum, (clipped * x.mask).sum(), kl, (bounded * x.mask).sum(), x.mask.sum()]
        return Objective(loss, torch.stack([part.detach().double() for part in sums]).cpu())
