"""Robots' tasks for imitation: what a scripted expert shows, and how well a policy does it in closed loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, assert_never

import numpy as np
from numpy.typing import NDArray

from configs.bc import AnyTable, ArmTable, BCConfig, ClosedLoopConfig, ReachTable
from deployments.protocol.act import Actions, ChunkRequest, Vector
from envs.base import Split
from envs.robots.arm_control import ArmControl
from envs.robots.arm_world import ACTION_HIGH, ACTION_LOW
from envs.robots.reach import Reach
from training.tracking.intervals import Estimate, proportion

# A policy, wherever it runs: an answer per request, in their order.
Ask = Callable[[Sequence[ChunkRequest]], Sequence[Actions]]

GRIPPER_SLIPS = 0.03  # share of the arm's demonstrated steps in which the gripper does the opposite


class RobotSeen(Protocol):
    """`image` [side, side, 3], `state` [D]; D is the task's own."""

    @property
    def image(self) -> NDArray[np.uint8] | None: ...
    @property
    def state(self) -> NDArray[np.float32]: ...
    @property
    def instruction(self) -> str: ...


class RobotStep(Protocol):
    @property
    def observation(self) -> RobotSeen: ...
    @property
    def success(self) -> bool: ...
    @property
    def truncated(self) -> bool: ...


class Table(Protocol):
    """A task of a robot: `Reach`, `ArmControl`. An action has A numbers."""

    def reset(self, seed: int) -> RobotSeen: ...
    def step(self, action: Vector) -> RobotStep: ...
    def expert_chunk(self, horizon: int) -> Actions: ...


@dataclass(frozen=True)
class Demonstrations:
    """N observations and what the expert does from each: `images` [N, side, side, 3] uint8, `states` [N, D], `prompts`
    (N of them), `chunks_H` [N, H, A]."""

    images: NDArray[np.uint8]
    states: NDArray[np.float32]
    prompts: list[str]
    chunks_H: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.prompts)


def table(settings: AnyTable, split: Split) -> Table:
    match settings:
        case ReachTable():
            return Reach(
                side=settings.side,
                objects=settings.objects,
                tolerance=settings.tolerance,
                hold_steps=settings.hold_steps,
                max_steps=settings.max_steps,
                split=split,
            )
        case ArmTable():
            return ArmControl(
                task=settings.task,
                side=settings.side,
                max_steps=settings.max_steps,
                split=split,
                state=settings.state,
            )
        case _:
            assert_never(settings)


def demonstrations(config: BCConfig) -> Demonstrations:
    """Episodes of the scripted expert on tables of the training split, its executed actions disturbed. What is learnt
    is its undisturbed plan from wherever the disturbance led: how to come back is in the data from the start."""
    settings, env = config.demonstrations, table(config.table, "train")
    rng = np.random.default_rng(config.seed)
    seen: list[RobotSeen] = []
    chunks = []
    for episode in range(settings.episodes):
        observation = env.reset(config.seed * 1_000_003 + episode)
        over, step = False, episode  # which steps are kept differs from episode to episode
        while not over:
            if step % settings.keep_every == 0:
                seen.append(observation)
                chunks.append(env.expert_chunk(config.chunk_len))
            result = env.step(disturbed(config.table, env.expert_chunk(1)[0], settings.noise, rng))
            observation, over, step = result.observation, result.success or result.truncated, step + 1
    return Demonstrations(
        np.stack([picture_of(observation) for observation in seen]),
        np.stack([observation.state for observation in seen]),
        [observation.instruction for observation in seen],
        np.stack(chunks),
    )


def disturbed(settings: AnyTable, action: Vector, noise: float, rng: np.random.Generator) -> Vector:
    """What is executed where the expert wanted `action`."""
    return (_disturb_arm if isinstance(settings, ArmTable) else _disturb)(action, noise, rng)


def _disturb(action: Vector, noise: float, rng: np.random.Generator) -> Vector:
    disturbed: Vector = action + rng.normal(0.0, noise, action.shape).astype(np.float32)
    return disturbed


def _disturb_arm(action: Vector, noise: float, rng: np.random.Generator) -> Vector:
    """The gripper is open or closed, so it gets no noise, but slips at times."""
    half_ranges = ((ACTION_HIGH - ACTION_LOW) / 2).astype(np.float32)
    disturbed = _disturb(action / half_ranges, noise, rng) * half_ranges
    disturbed[6] = 1 - action[6] if rng.random() < GRIPPER_SLIPS else action[6]
    return disturbed


def picture_of(observation: RobotSeen) -> NDArray[np.uint8]:
    """Raises ValueError for an observation of a robot without a camera."""
    if observation.image is None:
        raise ValueError("a chunk policy looks at pictures: make the table with a camera")
    return observation.image


def closed_loop(ask: Ask, settings: ClosedLoopConfig, task: AnyTable, split: Split = "heldout") -> Estimate:
    """Share of episodes that succeed, with the Wilson interval; heldout: tables that no demonstration showed. All are
    played side by side, so that the policy is asked for many chunks at a time. `execute_steps` actions of each chunk
    are executed before the policy looks again (receding horizon)."""
    tables = [table(task, split) for _ in range(settings.episodes)]
    now = {i: env.reset(settings.first_seed + i) for i, env in enumerate(tables)}
    successes, rounds = 0, 0
    while now:
        questions = [request_of(observation, f"{i}/{rounds}") for i, observation in now.items()]
        for i, chunk in zip(list(now), ask(questions), strict=True):
            for action in chunk[: settings.execute_steps]:
                step = tables[i].step(action)
                now[i] = step.observation
                if step.success or step.truncated:
                    successes += step.success
                    del now[i]
                    break
        rounds += 1
    return proportion(successes, settings.episodes)


def request_of(observation: RobotSeen, request_id: str) -> ChunkRequest:
    """The seed follows from the id, so that an evaluation can be repeated."""
    return ChunkRequest(
        request_id=request_id,
        images=picture_of(observation)[None],
        image_mask=np.ones(1, np.bool_),
        state=observation.state,
        prompt=observation.instruction,
    )
