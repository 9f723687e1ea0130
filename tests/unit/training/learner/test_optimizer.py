"""AdamW's state is there before the first step, and changes nothing of it."""

from __future__ import annotations

import torch
from torch import nn

from configs.training import OptimizerConfig
from training.learner.optimizer import adamw, steps_of, with_state

CONFIG = OptimizerConfig(lr=0.1, weight_decay=0.1)


def module() -> nn.ModuleDict:
    torch.manual_seed(0)
    return nn.ModuleDict({"used": nn.Linear(3, 2), "unused": nn.Linear(3, 2)})


def step(model: nn.ModuleDict, optimizer: torch.optim.Optimizer) -> None:
    model["used"](torch.ones(1, 3)).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def test_an_update_with_a_state_made_before_is_the_one_of_torch_to_the_bit() -> None:
    ours, torchs = module(), module()
    optimizer, plain = with_state(adamw(ours.parameters(), CONFIG)), adamw(torchs.parameters(), CONFIG)
    for _ in range(3):
        step(ours, optimizer)
        step(torchs, plain)
    for mine, theirs in zip(ours.parameters(), torchs.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    for name, told in plain.state[torchs["used"].weight].items():
        assert torch.equal(optimizer.state[ours["used"].weight][name], told)


def test_no_step_takes_memory_for_the_state() -> None:
    model = module()
    optimizer = with_state(adamw(model.parameters(), CONFIG))
    before = {id(tensor) for state in optimizer.state.values() for tensor in state.values()}
    step(model, optimizer)
    assert {id(tensor) for state in optimizer.state.values() for tensor in state.values()} == before
    assert len(before) == 3 * len(list(model.parameters()))


def test_a_parameter_without_a_gradient_does_not_hide_the_steps_of_the_others() -> None:
    model = module()
    optimizer = with_state(adamw(model.parameters(), CONFIG))
    assert steps_of(optimizer) == 0
    step(model, optimizer)
    step(model, optimizer)
    assert steps_of(optimizer) == 2
    optimizer.state.pop(model["used"].weight)  # lost
    step(model, optimizer)
    assert steps_of(optimizer) == 1
