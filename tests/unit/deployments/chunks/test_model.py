from __future__ import annotations

from pathlib import Path

import pytest
import torch

from deployments.chunks.checkpoint import load, tiny_checkpoint
from deployments.chunks.model import FlowPolicy, Observed, Prefix


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> FlowPolicy:
    return load(tiny_checkpoint(tmp_path_factory.mktemp("model") / "tiny"))


def observed(batch: int, seed: int = 0) -> Observed:
    generator = torch.Generator().manual_seed(seed)
    return Observed(
        torch.randint(256, (batch, 2, 16, 16, 3), generator=generator).to(torch.uint8),
        torch.ones(batch, 2, dtype=torch.bool),
        torch.randn(batch, 32, generator=generator),
        torch.randint(64, (batch, 16), generator=generator),
    )


def test_the_flow_arrives_where_it_heads_for_whatever_the_number_of_steps(
    model: FlowPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "flow_end", lambda context, actions, time: torch.full_like(actions, 3.0))
    for steps in (1, 4, 10):
        assert torch.equal(model.sample(observed(1), torch.ones(1, 10, 8), steps), torch.full((1, 10, 8), 3.0))


def test_frozen_rows_stand_at_time_one_while_the_others_are_integrated(
    model: FlowPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    times: list[list[float]] = []
    held: list[bool] = []
    prefix = Prefix(torch.full((1, 10, 8), 5.0), torch.tensor([[1.0] * 3 + [0.0] * 7]))

    def flow_end(context: object, actions: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        times.append(time[0].tolist())
        held.append(bool((actions[0, :3] == 5.0).all()))
        return torch.ones_like(actions)

    monkeypatch.setattr(model, "flow_end", flow_end)
    actions = model.sample(observed(1), torch.zeros(1, 10, 8), 2, prefix)
    assert times == [[1.0] * 3 + [0.0] * 7, [1.0] * 3 + [0.5] * 7]
    assert held == [True, True]
    assert actions[0, :, 0].tolist() == [5.0] * 3 + [1.0] * 7


def test_a_row_that_is_half_tied_ends_between_the_models_own_and_the_committed_one(
    model: FlowPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "flow_end", lambda context, actions, time: torch.ones_like(actions))
    prefix = Prefix(torch.full((1, 10, 8), 5.0), torch.full((1, 10), 0.5))
    # One step from noise 0 heads for 1, mixed half and half with 5: 3.
    assert model.sample(observed(1), torch.zeros(1, 10, 8), 1, prefix)[0, :, 0].tolist() == [3.0] * 10


def test_the_loss_is_how_far_the_flow_ends_from_the_actions(model: FlowPolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends at 1 everywhere, the actions are 3: the error is (3 - 1)^2 = 4 wherever it counts."""
    monkeypatch.setattr(model, "flow_end", lambda context, actions, time: torch.ones_like(actions))
    actions, noise = torch.full((2, 10, 8), 3.0), torch.zeros(2, 10, 8)
    actions[:, :, 7] = 1000.0  # a padded dimension
    actions[0, :4] = -1000.0  # frozen rows
    loss = model.loss(observed(2), actions, noise, torch.tensor([0.3, 0.9]), torch.tensor([4, 0]))
    assert loss.item() == 4.0


def test_the_flow_is_learnt_at_the_mix_of_noise_and_actions(model: FlowPolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []

    def flow_end(context: object, actions: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        seen.extend((actions, time))
        return actions

    monkeypatch.setattr(model, "flow_end", flow_end)
    model.loss(observed(1), torch.ones(1, 10, 8), torch.zeros(1, 10, 8), torch.tensor([0.25]), torch.tensor([2]))
    assert seen[0][0, :, 0].tolist() == [1.0] * 2 + [0.25] * 8
    assert seen[1][0].tolist() == [1.0] * 2 + [0.25] * 8


def test_a_few_updates_on_one_batch_lower_the_loss(tmp_path: Path) -> None:
    model = load(tiny_checkpoint(tmp_path / "tiny"))
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    generator = torch.Generator().manual_seed(0)
    actions, batch = torch.zeros(8, 10, 8), observed(8)
    losses = []
    for _ in range(60):
        noise, time = torch.randn(8, 10, 8, generator=generator), torch.rand(8, generator=generator)
        loss = model.loss(batch, actions, noise, time, torch.zeros(8, dtype=torch.int64))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) < 0.6 * sum(losses[:10])
