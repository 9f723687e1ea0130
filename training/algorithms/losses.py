"""Policy losses: tensors in, one scalar out. Pure; adding one is a function and a line in LOSSES.

Shapes: log-probabilities, mask [B, T] (B sequences, T positions; mask 1 where the policy chose), advantage [B].
Every loss is this micro-batch's SHARE of the whole batch's loss: it is divided by the denominators of the whole, so
shares of micro-batches and ranks simply add up. Absent on purpose: value function, token-level rewards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from configs.training import AlgorithmConfig
from training.types import Denominators


@dataclass(frozen=True)
class LossInputs:
    learner_logp: Tensor  # [B, T], with gradient
    behaviour_logp: Tensor  # [B, T], of the policy that the ratio is taken against, without gradient
    advantage: Tensor  # [B]
    mask: Tensor  # [B, T], float
    weight: Tensor  # [B, T], off-policy correction, without gradient; ones when there is none

    @property
    def ratio(self) -> Tensor:
        return torch.exp(torch.where(self.mask > 0, self.learner_logp - self.behaviour_logp, 0.0))


def clipped(ratio: Tensor, advantage: Tensor, config: AlgorithmConfig) -> Tensor:
    """-min(r A, clip(r, 1 - low, 1 + high) A), the PPO surrogate (arXiv 1707.06347) with separate bounds."""
    bounded = ratio.clamp(1 - config.clip_low, 1 + config.clip_high)
    return -torch.minimum(ratio * advantage, bounded * advantage)


def grpo(x: LossInputs, whole: Denominators, config: AlgorithmConfig) -> Tensor:
    """Mean over the tokens of each sequence, then over sequences (GRPO, arXiv 2402.03300)."""
    token = clipped(x.ratio, x.advantage[:, None], config) * x.weight * x.mask
    return (token.sum(1) / x.mask.sum(1).clamp(min=1)).sum() / max(whole.sequences, 1)


def dr_grpo(x: LossInputs, whole: Denominators, config: AlgorithmConfig) -> Tensor:
    """Sum over tokens, divided by the number of sequences alone: a constant that does not depend on answers' lengths,
    so long wrong answers are not weighed down (Dr. GRPO, arXiv 2503.20783)."""
    token = clipped(x.ratio, x.advantage[:, None], config) * x.weight * x.mask
    return token.sum() / max(whole.sequences, 1)


def dapo(x: LossInputs, whole: Denominators, config: AlgorithmConfig) -> Tensor:
    """Mean over all chosen tokens of the batch, upper clip bound wider than the lower (DAPO, arXiv 2503.14476)."""
    token = clipped(x.ratio, x.advantage[:, None], config) * x.weight * x.mask
    return token.sum() / max(whole.tokens, 1)


def gspo(x: LossInputs, whole: Denominators, config: AlgorithmConfig) -> Tensor:
    """One ratio a sequence: the geometric mean of its tokens' ratios, clipped (GSPO, arXiv 2507.18071)."""
    difference = torch.where(x.mask > 0, x.learner_logp - x.behaviour_logp, 0.0)
    length = x.mask.sum(1).clamp(min=1)
    ratio = torch.exp(difference.sum(1) / length)
    weight = (x.weight * x.mask).sum(1) / length
    present = (x.mask.sum(1) > 0).to(ratio.dtype)
    return (clipped(ratio, x.advantage, config) * weight * present).sum() / max(whole.sequences, 1)


def cispo(x: LossInputs, whole: Denominators, config: AlgorithmConfig) -> Tensor:
    """-sg(clip(r)) A log p: the bounded ratio is a weight, so no token loses its gradient (CISPO, arXiv 2506.13585)."""
    weight = x.ratio.detach().clamp(max=1 + config.clip_high)
    token = -weight * x.advantage[:, None] * torch.where(x.mask > 0, x.learner_logp, 0.0)
    return (token * x.weight * x.mask).sum() / max(whole.tokens, 1)


LOSSES: dict[str, Callable[[LossInputs, Denominators, AlgorithmConfig], Tensor]] = {
    "grpo": grpo,
    "dr_grpo": dr_grpo,
    "dapo": dapo,
    "gspo": gspo,
    "cispo": cispo,
}


def kl_to_reference(learner_logp: Tensor, reference_logp: Tensor, mask: Tensor) -> Tensor:
    """Sum over chosen tokens of exp(d) - d - 1, d = reference - learner: an estimate of KL(learner || reference) that
    is never negative (Schulman 2020, «Approximating KL divergence», k3)."""
    difference = torch.where(mask > 0, reference_logp - learner_logp, 0.0)
    return ((torch.exp(difference) - difference - 1) * mask).sum()
