"""From hidden states to logits, as the model's own forward does it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def logits_of(model: Any, hidden: Tensor) -> Tensor:
    """Logits [..., V] of hidden states [..., D]: the head, and what transformers' causal models do after it: a divisor
    (`logits_scaling`: Granite), a factor (`logit_scale`: Cohere), a soft cap (`final_logit_softcapping`: Gemma)."""
    logits: Tensor = model.lm_head(hidden)
    config = model.config
    if divisor := getattr(config, "logits_scaling", None):
        logits = logits / divisor
    if factor := getattr(config, "logit_scale", None):
        logits = logits * factor
    if cap := getattr(config, "final_logit_softcapping", None):
        logits = torch.tanh(logits / cap) * cap
    return logits
