"""AdamW: its settings and its state."""

from __future__ import annotations

from typing import Any

import torch

from configs.training import OptimizerConfig


def adamw(parameters: Any, config: OptimizerConfig) -> torch.optim.AdamW:
    return torch.optim.AdamW(
        parameters,
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        weight_decay=config.weight_decay,
        fused=True,  # one pass over the memory: 135 M parameters on two cores take 0.35 s, not 2 s
    )


def with_state(optimizer: torch.optim.AdamW) -> torch.optim.AdamW:
    """The optimiser with the zeros that its first step would make, before there are activations. Made in that step,
    they lie where activations were, and the next ones need other memory (135 M parameters: 0.3 GiB at the peak)."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            optimizer.state[parameter] = {
                "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
    return optimizer


def configure(optimizer: Any, config: OptimizerConfig) -> None:
    """The settings of this run: a state that was loaded brings those of the run that saved it along."""
    for group in optimizer.param_groups:
        group.update(betas=(config.beta1, config.beta2), eps=config.eps, weight_decay=config.weight_decay)


def steps_of(optimizer: torch.optim.Optimizer) -> int:
    """How many steps its state has seen. A parameter that never had a gradient has not stepped."""
    found = (int(state["step"]) for state in optimizer.state.values() if "step" in state)
    return min((steps for steps in found if steps), default=0)
