"""Behaviour cloning of a chunk policy: flow matching on what a scripted expert shows. torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from configs.base import UserError
from configs.bc import BCConfig, ChunkTraining
from deployments.chunks.checkpoint import untrained, write
from deployments.chunks.description import ChunkDescription, MeanStd, Statistics
from deployments.chunks.model import FlowPolicy, Observed
from deployments.chunks.predict import Predictor
from deployments.chunks.prompts import word_ids
from deployments.chunks.transforms import Normalizer
from deployments.storage.atomic import written_whole
from training.imitation.recorded import recorded
from training.imitation.robots import Demonstrations, closed_loop, demonstrations
from training.tracking.intervals import Estimate

Progress = Callable[[int, int, float], None]  # step, steps, mean loss since the last call
STEPS_PER_LOSS = 50
CLOSED_LOOP_BATCH = 64


class TrainingDiverged(UserError):
    """The loss or its gradient is not finite; the message says at which step."""


@dataclass(frozen=True)
class Cloned:
    """What became of it: success in closed loop before and after training, and the loss at the end."""

    untrained: Estimate
    trained: Estimate
    loss: float


def clone(config: BCConfig, progress: Progress | None = None) -> Cloned:
    """Collects demonstrations, trains, writes the checkpoint to `config.output`, and tries the policy out.

    The checkpoint appears whole at the end. Raises ConfigError, before it trains, when something else lies there.
    """
    with written_whole(config.output) as staged:
        dataset = config.demonstrations.dataset
        shown = demonstrations(config) if dataset is None else recorded(dataset, config)
        description = describe(config, shown)
        model = untrained(description, config.seed)
        before = success(model, config)
        loss = train(model, shown, config, progress)
        write(staged, description, model.state_dict())
    return Cloned(before, success(model, config), loss)


def describe(config: BCConfig, shown: Demonstrations) -> ChunkDescription:
    """The policy that fits these demonstrations, their statistics included."""
    return ChunkDescription(
        name=config.table.kind,
        resolution=(config.table.side, config.table.side),
        num_cams=1,
        action_dim=shown.chunks_H.shape[2],
        max_action_dim=shown.chunks_H.shape[2],
        chunk_len=config.chunk_len,
        max_delay=config.max_delay,
        model=config.model,
        statistics={config.table.kind: Statistics(state=_mean_std(shown.states), action=_mean_std(shown.chunks_H))},
    )


def _mean_std(values: NDArray[np.float32]) -> MeanStd:
    flat = values.reshape(-1, values.shape[-1]).astype(np.float64)
    return MeanStd(mean=flat.mean(0).tolist(), std=flat.std(0).tolist())


def success(model: FlowPolicy, config: BCConfig) -> Estimate:
    """Closed loop on the held-out tables, in this process."""
    predict = Predictor(model, config.evaluation.flow_steps, _device())
    return closed_loop(
        lambda requests: [
            chunk
            for start in range(0, len(requests), CLOSED_LOOP_BATCH)
            for chunk in predict(requests[start : start + CLOSED_LOOP_BATCH])
        ],
        config.evaluation,
        config.table,
    )


@dataclass(frozen=True)
class _Examples:
    """Demonstrations as the model takes them; see `Observed`. `actions` [N, H, A]."""

    observed: Observed
    actions: Tensor

    def __len__(self) -> int:
        return len(self.actions)

    def batch(self, chosen: Tensor, device: str) -> tuple[Observed, Tensor]:
        """The chosen ones, on the device."""
        fields = (self.observed.images, self.observed.image_mask, self.observed.state, self.observed.words)
        return Observed(*(field[chosen].to(device) for field in fields)), self.actions[chosen].to(device)


def _examples(shown: Demonstrations, description: ChunkDescription) -> _Examples:
    statistics = description.statistics[description.default]
    state = np.zeros((len(shown), description.max_state_dim), np.float32)
    state[:, : shown.states.shape[1]] = Normalizer(statistics.state).normalise(shown.states)
    actions = np.zeros((len(shown), description.chunk_len, description.max_action_dim), np.float32)
    actions[:, :, : description.action_dim] = Normalizer(statistics.action).normalise(shown.chunks_H)
    sizes = description.model
    words = np.stack([word_ids(prompt, sizes.prompt_words, sizes.vocabulary) for prompt in shown.prompts])
    observed = Observed(
        torch.from_numpy(shown.images)[:, None],
        torch.ones(len(shown), 1, dtype=torch.bool),
        torch.from_numpy(state),
        torch.from_numpy(words),
    )
    return _Examples(observed, torch.from_numpy(actions))


def train(model: FlowPolicy, shown: Demonstrations, config: BCConfig, progress: Progress | None = None) -> float:
    """Trains in place; returns the mean loss of the last steps."""
    settings, device = config.training, _device()
    examples = _examples(shown, model.description)
    model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), settings.lr, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, settings))
    generator = torch.Generator().manual_seed(config.seed)
    losses: list[float] = []
    for step, chosen in enumerate(_batches(len(examples), settings, generator), start=1):
        observed, actions = examples.batch(chosen, device)
        noise = torch.randn(actions.shape, generator=generator).to(device)
        time, delay = _times(len(chosen), generator), _delays(len(chosen), config.max_delay, generator)
        loss = model.loss(observed, actions, noise, time.to(device), delay.to(device))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), settings.max_grad_norm)
        if not math.isfinite(float(norm) + loss.item()):
            raise TrainingDiverged(
                f"step {step}: the loss is {loss.item():g}, its gradient {float(norm):g}. Nothing was written; lower "
                f"training.lr ({settings.lr:g})"
            )
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if progress is not None and (step % STEPS_PER_LOSS == 0 or step == settings.steps):
            progress(step, settings.steps, _recent(losses))
    model.eval()
    return _recent(losses)


def _times(count: int, generator: torch.Generator) -> Tensor:
    """Flow times [count] in [0, 1), more of them near the noise: near the end the answer is all but told."""
    return torch.rand(count, generator=generator) ** 2


def _delays(count: int, max_delay: int, generator: torch.Generator) -> Tensor:
    """How many actions are frozen [count]: none in half of the examples (what is frozen tells where the expert goes, so
    that the picture is not looked at), else up to `max_delay`, so that the policy learns to continue them."""
    frozen = torch.randint(max_delay + 1, (count,), generator=generator)
    return torch.where(torch.rand(count, generator=generator) < 0.5, frozen, 0)


def _batches(size: int, settings: ChunkTraining, generator: torch.Generator) -> Iterator[Tensor]:
    """Indices of each update's examples: every example once per pass over them, in another order each time."""
    order = torch.empty(0, dtype=torch.int64)
    for _ in range(settings.steps):
        while len(order) < settings.batch_size:
            order = torch.cat((order, torch.randperm(size, generator=generator)))
        yield order[: settings.batch_size]
        order = order[settings.batch_size :]


def _rate(step: int, settings: ChunkTraining) -> float:
    """Share of the learning rate at an update."""
    if step < settings.warmup_steps:
        return (step + 1) / settings.warmup_steps
    done = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
    return 0.1 + 0.45 * (1 + math.cos(math.pi * min(1.0, done)))


def _recent(losses: list[float]) -> float:
    recent = losses[-STEPS_PER_LOSS:]
    return sum(recent) / len(recent)


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"
