"""Frames of the scripted expert of a robot's task."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from configs.bc import BCConfig
from training.imitation.robots import disturbed, picture_of, table

CONTROL_HZ = {"arm": 5, "reach": 10}  # actions a second; reach has no clock, and takes LeRobot's usual number
NAMES = {  # of an action's numbers
    "arm": ("x", "y", "z", "tilt", "roll", "rotation", "gripper"),
    "reach": ("x", "y"),
}


@dataclass(frozen=True)
class Frame:
    """What was seen (`image` [side, side, 3] uint8, `state` [D]) and the `action` [A] that followed. `done`: it ended
    the episode, `success`: by reaching its goal."""

    image: NDArray[np.uint8]
    state: NDArray[np.float32]
    action: NDArray[np.float32]
    done: bool
    success: bool


@dataclass(frozen=True)
class RobotEpisode:
    instruction: str
    frames: list[Frame]


def expert_episodes(config: BCConfig) -> Iterator[RobotEpisode]:
    """Of tables of the training split, each from a seed of its own. What is recorded is the action that the expert
    wanted; what is executed is disturbed by `demonstrations.noise`, so that frames show how to come back (0: exactly
    that)."""
    settings, env = config.demonstrations, table(config.table, "train")
    rng = np.random.default_rng(config.seed)
    for episode in range(settings.episodes):
        observation = env.reset(config.seed * 1_000_003 + episode)
        frames: list[Frame] = []
        while not frames or not frames[-1].done:
            action = np.asarray(env.expert_chunk(1)[0], np.float32)
            executed = disturbed(config.table, action, settings.noise, rng) if settings.noise else action
            result = env.step(executed)
            over = result.success or result.truncated
            state = np.asarray(observation.state, np.float32)
            frames.append(Frame(picture_of(observation), state, action, over, result.success))
            instruction, observation = observation.instruction, result.observation
        yield RobotEpisode(instruction, frames)
