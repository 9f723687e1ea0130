"""Corrections for a sampler that differs from the learner. Pure."""

from __future__ import annotations

import torch
from torch import Tensor

from configs.training import AlgorithmConfig


def off_policy_weight(learner_logp: Tensor, sampler_logp: Tensor, mask: Tensor, config: AlgorithmConfig) -> Tensor:
    """Correction for a sampler that differs from the learner (another engine, older weights); [B, T], no gradient.

    tis: min(r, high) (truncated importance sampling); icepop: r inside [low, high], 0 outside; sequence_mask: whole
    sequences whose mean ratio lies outside are left out.
    """
    difference = torch.where(mask > 0, learner_logp.detach() - sampler_logp, 0.0)
    ratio = torch.exp(difference)
    low, high = config.off_policy_low, config.off_policy_high
    if config.off_policy == "none":
        return torch.ones_like(ratio)
    if config.off_policy == "tis":
        return ratio.clamp(max=high)
    if config.off_policy == "icepop":
        return torch.where((ratio >= low) & (ratio <= high), ratio, 0.0)
    mean = torch.exp(difference.sum(1) / mask.sum(1).clamp(min=1))
    return ((mean >= low) & (mean <= high)).to(ratio.dtype)[:, None].expand_as(ratio)
