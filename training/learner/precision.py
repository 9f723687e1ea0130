"""What a forward pass computes in. Weights that are trained are float32 in any case."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from training.learner.microbatches import padding_microbatch
from training.learner.policy import Policy

logger = logging.getLogger("rayward")

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}  # by model.dtype


def autocast(module: nn.Module, compute: torch.dtype) -> torch.autocast:
    """For shardings that have no configuration of their own for it."""
    device = next(module.parameters()).device.type
    return torch.autocast(device, torch.bfloat16, enabled=compute == torch.bfloat16)


@torch.no_grad()
def check_precision(policy: Policy, forward: Callable[..., Any], compute: torch.dtype, device: torch.device) -> None:
    """One small forward pass, a collective. Raises RuntimeError unless the linear maps of the layers give `compute` and
    the log-probabilities are float32."""
    found: set[torch.dtype] = set()

    def observe(module: nn.Module, inputs: Any, output: Tensor) -> None:
        found.add(output.dtype)

    hooks = [
        part.register_forward_hook(observe)
        for layer in policy.layers
        for part in layer.modules()
        if isinstance(part, nn.Linear)
    ]
    try:
        probe = padding_microbatch().to(device)
        scored = forward(token_ids=probe.token_ids, mask=torch.ones_like(probe.mask))
    finally:
        for hook in hooks:
            hook.remove()
    if found - {compute} or scored.logp.dtype != torch.float32:
        names = ", ".join(sorted(map(str, found)))
        raise RuntimeError(
            f"the learner is configured to compute in {compute}, and computes in {names}; its log-probabilities are "
            f"{scored.logp.dtype}"
        )
    logger.info("the learner computes in %s; its weights are float32", compute)
