"""Corrections for a sampler that differs from the learner (another engine, older weights). Pure.

Decoupled as in arXiv 2110.00641 (whose proximal policy is `behaviour` here): `ratio = learner / behaviour` bounds how
far the updates of one batch move the policy; `weight`, from `behaviour / sampler`, corrects for who drew the tokens.
Both are fixed before the batch's first update, so the difference between learner and sampler counts once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from configs.training import AlgorithmConfig

MAX_LOG_RATIO = 20.0  # e^20 = 4.9e8: float32 holds it, its products with advantages, and sums over millions of tokens


@dataclass(frozen=True)
class Behaviour:
    """What the ratios of one micro-batch are taken against, and the weight of each token; neither has a gradient.

    off_policy tis, high 2, learner p = (0.6, 0.9) where the sampler had (0.5, 0.3): ratios start at exactly 1 and
    Behaviour(logp=[[log 0.6, log 0.9]], weight=[[1.2, 2.0]])
    """

    logp: Tensor  # [B, T]
    weight: Tensor  # [B, T]; 0: the token is left out


def behaviour(learner_logp: Tensor, sampler_logp: Tensor, mask: Tensor, config: AlgorithmConfig) -> Behaviour:
    """`learner_logp` [B, T] comes from before the first update of the batch.

    The behaviour policy is the learner before that update. Its ratio is then 1 in the first update, whose gradient
    has the coefficient `weight`: min(r, high) for tis. One exception: with `off_policy: none` and one update per batch
    nothing else would correct for the sampler, so it is the behaviour policy, and the clip bounds learner / sampler.
    """
    frozen = learner_logp.detach()
    return Behaviour(
        sampler_logp if by_ratio(config) else frozen, off_policy_weight(frozen, sampler_logp, mask, config)
    )


def by_ratio(config: AlgorithmConfig) -> bool:
    """Whether the sampler itself is the behaviour policy."""
    return config.off_policy == "none" and config.updates_per_batch == 1


def off_policy_weight(behaviour_logp: Tensor, sampler_logp: Tensor, mask: Tensor, config: AlgorithmConfig) -> Tensor:
    """Weight of each token, [B, T], no gradient, from r = behaviour / sampler.

    none: 1; tis: min(r, high) (truncated importance sampling); icepop: r inside [low, high], 0 outside;
    sequence_mask: 1, or 0 for whole sequences whose geometric mean of r lies outside [low, high].
    """
    difference = torch.where(mask > 0, behaviour_logp.detach() - sampler_logp, 0.0)
    low, high = config.off_policy_low, config.off_policy_high
    if config.off_policy == "none":
        return torch.ones_like(difference)
    if config.off_policy == "sequence_mask":
        mean = bounded_exp(difference.sum(1) / mask.sum(1).clamp(min=1))
        return ((mean >= low) & (mean <= high)).to(difference.dtype)[:, None].expand_as(difference)
    ratio = bounded_exp(difference)
    if config.off_policy == "tis":
        return ratio.clamp(max=high)
    return torch.where((ratio >= low) & (ratio <= high), ratio, 0.0)


def bounded_exp(log_ratio: Tensor) -> Tensor:
    """exp with its argument clamped to ±MAX_LOG_RATIO: value and gradient are finite (the gradient is 0 outside)."""
    return torch.exp(log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO))


@dataclass(frozen=True)
class Drift:
    """How far the learner's log-probabilities lie from the sampler's, over tokens: sum and largest of |difference|."""

    total: float = 0.0
    largest: float = 0.0

    def with_tokens(self, learner_logp: Tensor, sampler_logp: Tensor, mask: Tensor) -> Drift:
        difference = torch.where(mask > 0, learner_logp.detach() - sampler_logp, 0.0).abs().double()
        return Drift(self.total + float(difference.sum()), max(self.largest, float(difference.max())))
