"""The learning rate of each optimiser step. Pure: nothing to save but the step count."""

from __future__ import annotations

import math

from configs.training import OptimizerConfig


def learning_rate(config: OptimizerConfig, step: int, total: int) -> float:
    """Linear warm-up, then constant, linear or cosine down to `final_lr_fraction` at step `total`; `step` counts from 0.

    A function of the step rather than torch's LRScheduler objects: a resumed run needs no state, and DeepSpeed, which
    wraps the optimiser, sets its rate the same way as the others.

    >>> config = OptimizerConfig(lr=1.0, warmup_steps=2, schedule="cosine", final_lr_fraction=0.0)
    >>> [round(learning_rate(config, step, 6), 3) for step in (0, 1, 2, 4, 6, 7)]
    [0.5, 1.0, 1.0, 0.5, 0.0, 0.0]
    """
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return config.lr
    done = min(1.0, (step - config.warmup_steps) / max(1, total - config.warmup_steps))
    left = 1 - done if config.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))
    return config.lr * (config.final_lr_fraction + (1 - config.final_lr_fraction) * left)
