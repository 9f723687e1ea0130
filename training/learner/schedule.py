"""Learning rate over the steps. Pure."""

from __future__ import annotations

import math

from configs.training import OptimizerConfig


def learning_rate(config: OptimizerConfig, step: int, total: int) -> float:
    """Linear warm-up, then constant, linear or cosine down to `final_lr_fraction`; `step` counts from 0."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return config.lr
    done = min(1.0, (step - config.warmup_steps) / max(1, total - config.warmup_steps))
    left = 1 - done if config.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))
    return config.lr * (config.final_lr_fraction + (1 - config.final_lr_fraction) * left)
