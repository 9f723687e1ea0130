"""The policy has one mode: the sampler's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from training.learner.policy import Policy


class Layer(nn.Module):
    """As transformers' layers do: a functional dropout and a skipped layer of its own, and a dropout module inside."""

    def __init__(self) -> None:
        super().__init__()
        self.gradient_checkpointing = False
        self.dropout, self.layerdrop = 0.9, 0.9
        self.inner = nn.Dropout(0.9)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training and torch.rand(()) < self.layerdrop:
            return x * 0
        return self.inner(nn.functional.dropout(x, self.dropout, self.training))


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = Layer()
        self.lm_head = nn.Linear(2, 3)

    def model(self, **_: Any) -> Any:
        raise NotImplementedError


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("mode", [False, True])
def test_nothing_is_dropped_in_either_mode(mode: bool, checkpointing: bool) -> None:
    model = Model()
    model.layer.gradient_checkpointing = checkpointing
    policy = Policy(model, 1.0, 8).train(mode)
    x = torch.ones(64)
    assert torch.equal(policy.model.layer(x), x)


def test_only_layers_that_checkpoint_their_gradient_stay_in_training_mode() -> None:
    model = Model()
    model.layer.gradient_checkpointing = True
    policy = Policy(model, 1.0, 8)
    assert [name for name, module in policy.named_modules() if module.training] == ["model.layer"]
    policy.eval()
    assert [name for name, module in policy.named_modules() if module.training] == ["model.layer"]
