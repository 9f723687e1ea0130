"""Policy losses."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from configs.training import AlgorithmConfig
from training.algorithms.losses import LOSSES, LossInputs
from training.types import Denominators


def inputs(ratio: list[float], advantage: float) -> LossInputs:
    behaviour = torch.zeros(1, len(ratio))
    logp = torch.log(torch.tensor([ratio]))
    return LossInputs(logp, behaviour, torch.tensor([advantage]), torch.ones_like(logp), torch.ones_like(logp))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # ratios 1.0 and 1.5, advantage 2, clip at 1.28: -(2 + 2.56)
        ("grpo", -4.56 / 2 / 1),  # mean of the sequence, one sequence
        ("dr_grpo", -4.56 / 1),  # sum over tokens, one sequence
        ("dapo", -4.56 / 2),  # two tokens
        ("gspo", -2 * min(1.5**0.5, 1.0004)),  # geometric mean of the ratios, with bounds of its own
        ("cispo", -(1.0 * 2 * 0.0 + 1.28 * 2 * 0.4054651) / 2),  # weight times log-probability
    ],
)
def test_losses_by_hand(name: str, expected: float) -> None:
    loss = LOSSES[name](inputs([1.0, 1.5], 2.0), Denominators(2, 1), AlgorithmConfig(loss=name))
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_a_ratio_past_the_bound_gives_no_gradient_but_for_cispo() -> None:
    for name, loss in LOSSES.items():
        x = inputs([2.0, 2.0], 1.0)
        logp = x.learner_logp.clone().requires_grad_()
        loss(LossInputs(logp, *(getattr(x, f) for f in ("behaviour_logp", "advantage", "mask", "weight"))),
             Denominators(2, 1), AlgorithmConfig(loss=name)).backward()  # fmt: skip
        assert bool((logp.grad == 0).all()) == (name != "cispo")


def test_gspo_clips_at_the_bounds_of_its_paper_unless_others_are_set() -> None:
    """At 0.2 and 0.28 a ratio of a whole sequence is never clipped."""
    for ratio, moves in ((1.0003, True), (1.001, False), (0.998, True)):
        x = inputs([ratio, ratio], 1.0)
        logp = x.learner_logp.clone().requires_grad_()
        LOSSES["gspo"](replace(x, learner_logp=logp), Denominators(2, 1), AlgorithmConfig(loss="gspo")).backward()
        assert bool((logp.grad != 0).all()) == moves, ratio
    assert AlgorithmConfig(loss="gspo", clip_high=0.1).clip == (3e-4, 0.1)
    assert AlgorithmConfig().clip == (0.2, 0.28)


def of_two_turns(advantage: list[list[float]], logp: torch.Tensor) -> LossInputs:
    """One sequence: a token of the first turn, one of the context, one of the second turn."""
    mask = torch.tensor([[1.0, 0.0, 1.0]])
    return LossInputs(logp, torch.zeros(1, 3), torch.tensor(advantage), mask, torch.ones(1, 3))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # ratios 1.5 and 0.5, advantages 2 and -1, bounds 0.8 and 1.28: -(2 * 1.28 - 1 * 0.8) = -1.76
        ("grpo", -1.76 / 2 / 3),  # mean of two tokens, three episodes
        ("dr_grpo", -1.76 / 3),
        ("dapo", -1.76 / 10),
        ("cispo", -(1.28 * 2 * 0.4054651 - 0.5 * 1 * -0.6931472) / 10),
    ],
)
def test_each_turn_of_a_sequence_is_pushed_by_its_own_advantage(name: str, expected: float) -> None:
    logp = torch.log(torch.tensor([[1.5, 1.0, 0.5]])).requires_grad_()
    config = AlgorithmConfig(loss=name)
    loss = LOSSES[name](of_two_turns([[2.0, 5.0, -1.0]], logp), Denominators(10, 3), config)
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)
    near = torch.zeros(1, 3, requires_grad=True)  # ratios of 1: nothing is clipped
    LOSSES[name](of_two_turns([[2.0, 5.0, -1.0]], near), Denominators(10, 3), config).backward()
    assert near.grad is not None
    assert near.grad[0, 0] < 0 == near.grad[0, 1] < near.grad[0, 2]  # the context moves nothing


@pytest.mark.parametrize("name", ["grpo", "dr_grpo", "dapo", "cispo"])
def test_one_advantage_for_each_token_is_exactly_one_for_the_sequence_where_they_are_equal(name: str) -> None:
    x = inputs([1.0, 1.5, 0.3], 0.7)
    each = replace(x, advantage=torch.full((1, 3), 0.7))
    whole, config = Denominators(3, 1), AlgorithmConfig(loss=name)
    assert LOSSES[name](each, whole, config).equal(LOSSES[name](x, whole, config))
