"""The reaching task for imitation: what its scripted expert shows, and how well a policy does it in closed loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from configs.bc import BCConfig, ClosedLoopConfig, ReachTable
from deployments.protocol.act import Actions, ChunkRequest
from envs.base import Split
from envs.robots.reach import Reach, ReachObservation
from training.tracking.intervals import Estimate, proportion

# A policy, wherever it runs: an answer per request, in their order.
Ask = Callable[[Sequence[ChunkRequest]], Sequence[Actions]]


@dataclass(frozen=True)
class Demonstrations:
    """N observations and what the expert does from each: `images` [N, side, side, 3] uint8, `states` [N, 2], `prompts`
    (N of them), `chunks_H` [N, H, 2]."""

    images: NDArray[np.uint8]
    states: NDArray[np.float32]
    prompts: list[str]
    chunks_H: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.prompts)


def table(settings: ReachTable, split: Split) -> Reach:
    return Reach(
        side=settings.side,
        objects=settings.objects,
        tolerance=settings.tolerance,
        hold_steps=settings.hold_steps,
        max_steps=settings.max_steps,
        split=split,
    )


def demonstrations(config: BCConfig) -> Demonstrations:
    """Episodes of the scripted expert on tables of the training split, its executed actions disturbed. What is learnt
    is its undisturbed plan from wherever the disturbance led: how to come back is in the data from the start."""
    settings, env = config.demonstrations, table(config.table, "train")
    rng = np.random.default_rng(config.seed)
    seen: list[ReachObservation] = []
    chunks = []
    for episode in range(settings.episodes):
        observation = env.reset(config.seed * 1_000_003 + episode)
        over, step = False, episode  # which steps are kept differs from episode to episode
        while not over:
            if step % settings.keep_every == 0:
                seen.append(observation)
                chunks.append(env.expert_chunk(config.chunk_len))
            disturbed = env.expert_chunk(1)[0] + rng.normal(0.0, settings.noise, 2).astype(np.float32)
            result = env.step(disturbed)
            observation, over, step = result.observation, result.success or result.truncated, step + 1
    return Demonstrations(
        np.stack([observation.image for observation in seen]),
        np.stack([observation.state for observation in seen]),
        [observation.instruction for observation in seen],
        np.stack(chunks),
    )


def closed_loop(ask: Ask, settings: ClosedLoopConfig, task: ReachTable, split: Split = "heldout") -> Estimate:
    """Share of episodes that succeed, with the Wilson interval; heldout: tables that no demonstration showed. All are
    played side by side, so that the policy is asked for many chunks at a time; `execute_steps` actions of each are
    executed."""
    tables = [table(task, split) for _ in range(settings.episodes)]
    now = {i: env.reset(settings.first_seed + i) for i, env in enumerate(tables)}
    successes, rounds = 0, 0
    while now:
        questions = [request_of(observation, f"{i}/{rounds}") for i, observation in now.items()]
        for i, chunk in zip(list(now), ask(questions), strict=True):
            for action in chunk[: settings.execute_steps]:
                step = tables[i].step(action[:2])
                now[i] = step.observation
                if step.success or step.truncated:
                    successes += step.success
                    del now[i]
                    break
        rounds += 1
    return proportion(successes, settings.episodes)


def request_of(observation: ReachObservation, request_id: str) -> ChunkRequest:
    """The seed follows from the id, so that an evaluation can be repeated."""
    return ChunkRequest(
        request_id=request_id,
        images=observation.image[None],
        image_mask=np.ones(1, np.bool_),
        state=observation.state,
        prompt=observation.instruction,
    )
