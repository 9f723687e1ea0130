"""Policy losses: tensors in, one scalar out. Pure; adding one is a function and a line in LOSSES.

Shapes: log-probabilities, mask [B, T] (B sequences, T positions; mask 1 where the policy chose), advantage [B], or
[B, T] where the turns of a sequence have advantages of their own (algorithm.credit).
Every loss is this micro-batch's SHARE of the whole batch's loss: it is divided by the denominators of the whole, so
shares of micro-batches and ranks simply add up. Absent on purpose: value function, token-level rewards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from configs.training import AlgorithmConfig
from training.algorithms.off_policy import MAX_LOG_RATIO, bounded_exp
from training.types import Denominators


@dataclass(frozen=True)
class LossInputs:
    """One micro-batch as a loss sees it.

    Two sequences of three positions; the first chose two tokens, the second one; the last token of the first is left
    out by its weight:

    LossInputs(
        learner_logp=[[0, -0.5, -2.0], [0, 0, -1.0]],
        behaviour_logp=[[0, -0.7, -9.0], [0, 0, -1.0]],
        advantage=[1.0, -1.0],
        mask=[[0, 1, 1], [0, 0, 1]],
        weight=[[1, 1.2, 0], [1, 1, 1]],
    )  # ratio is [[1, e^0.2, 1], [1, 1, 1]]
    """

    learner_logp: Tensor  # [B, T], with gradient
    behaviour_logp: Tensor  # [B, T], of the policy that the ratio is taken against, without gradient
    advantage: Tensor  # [B] or [B, T]
    mask: Tensor  # [B, T], float
    weight: Tensor  # [B, T], off-policy correction, without gradient; ones when there is none

    @property
    def counted(self) -> Tensor:
        """[B, T] bool: chosen by the policy and not left out. What is not counted has no value and no gradient in any
        loss: it is selected away, since an infinity times weight 0 would be NaN."""
        return (self.mask > 0) & (self.weight > 0)

    @property
    def token_advantage(self) -> Tensor:
        """[B, T], or [B, 1] where all tokens of a sequence have the same."""
        return self.advantage[:, None] if self.advantage.dim() == 1 else self.advantage

    @property
    def log_ratio(self) -> Tensor:
        """[B, T], unbounded; 0 where nothing is counted."""
        return torch.where(self.counted, self.learner_logp - self.behaviour_logp, 0.0)

    @property
    def ratio(self) -> Tensor:
        """[B, T] learner / behaviour, between e^-20 and e^20; 1 where nothing is counted."""
        return bounded_exp(self.log_ratio)


def clipped(ratio: Tensor, advantage: Tensor, config: AlgorithmConfig) -> Tensor:
    """-min(r A, clip(r, 1 - low, 1 + high) A), the PPO surrogate (arXiv 1707.06347) with separate bounds."""
    low, high = config.clip
    bounded = ratio.clamp(1 - low, 1 + high)
    return -torch.minimum(ratio * advantage, bounded * advantage)


def _surrogate(x: LossInputs, config: AlgorithmConfig) -> Tensor:
    return torch.where(x.counted, clipped(x.ratio, x.token_advantage, config) * x.weight, 0.0)


def grpo(x: LossInputs, whole: Denominators, config: AlgorithmConfig) -> Tensor:
    """Mean over the tokens of each sequence, then over episodes (GRPO, arXiv 2402.03300)."""
    token = _surrogate(x, config)
    return (token.sum(1) / x.mask.sum(1).clamp(min=1)).sum() / max(whole.episodes, 1)


def dr_grpo(x: LossInputs, whole: Denominators, config: AlgorithmConfig) -> Tensor:
    """Sum over tokens, divided by the number of episodes alone: a constant that does not depend on answers' lengths,
    so long wrong answers are not weighed down (Dr. GRPO, arXiv 2503.20783)."""
    token = _surrogate(x, config)
    return token.sum() / max(whole.episodes, 1)


def dapo(x: LossInputs, whole: Denominators, config: AlgorithmConfig) -> Tensor:
    """Mean over all chosen tokens of the batch, upper clip bound wider than the lower (DAPO, arXiv 2503.14476)."""
    token = _surrogate(x, config)
    return token.sum() / max(whole.tokens, 1)


def _sequence_ratio(x: LossInputs) -> Tensor:
    """[B], the geometric mean of the tokens' ratios."""
    return bounded_exp(x.log_ratio.sum(1) / x.mask.sum(1).clamp(min=1))


def outside_clip(x: LossInputs, config: AlgorithmConfig) -> Tensor:
    """[B, T] bool: where the ratio that the loss bounds is beyond its bounds; in gspo that of the whole sequence."""
    low, high = config.clip
    ratio = _sequence_ratio(x)[:, None].expand_as(x.ratio) if config.loss == "gspo" else x.ratio
    return (ratio < 1 - low) | (ratio > 1 + high)


def gspo(x: LossInputs, whole: Denominators, config: AlgorithmConfig) -> Tensor:
    """One ratio per sequence: the geometric mean of its tokens' ratios, clipped (GSPO, arXiv 2507.18071). Its weight is
    the mean of the tokens' weights. The advantage is the sequence's, [B]."""
    weight = (x.weight * x.mask).sum(1) / x.mask.sum(1).clamp(min=1)
    sequence = torch.where(weight > 0, clipped(_sequence_ratio(x), x.advantage, config) * weight, 0.0)
    return sequence.sum() / max(whole.episodes, 1)


def cispo(x: LossInputs, whole: Denominators, config: AlgorithmConfig) -> Tensor:
    """-sg(clip(r)) A log p: the bounded ratio is a weight, so no token loses its gradient (CISPO, arXiv 2506.13585)."""
    weight = x.ratio.detach().clamp(max=1 + config.clip[1]) * x.weight
    logp = torch.where(x.counted, x.learner_logp, 0.0)
    return torch.where(x.counted, -weight * x.token_advantage * logp, 0.0).sum() / max(whole.tokens, 1)


LOSSES: dict[str, Callable[[LossInputs, Denominators, AlgorithmConfig], Tensor]] = {
    "grpo": grpo,
    "dr_grpo": dr_grpo,
    "dapo": dapo,
    "gspo": gspo,
    "cispo": cispo,
}


def kl_to_reference(learner_logp: Tensor, reference_logp: Tensor, mask: Tensor) -> Tensor:
    """Sum over chosen tokens of exp(d) - d - 1, d = reference - learner within ±MAX_LOG_RATIO: an estimate of
    KL(learner || reference) that is never negative (Schulman 2020, «Approximating KL divergence», k3)."""
    difference = torch.where(mask > 0, reference_logp - learner_logp, 0.0).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    return ((torch.exp(difference) - difference - 1) * mask).sum()
