"""Reach: a gripper on a table moves to the object that the instruction names, seen through a camera. numpy only.

The state tells where the gripper is, never where the objects are: a policy must find the named one in the picture, and
there is always another one. Actions are absolute positions, as in most robots' action chunks.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from envs.base import EpisodeOver, SettingError, Split, check_choice, in_split

COLOURS = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (60, 90, 230), "yellow": (230, 210, 50)}
TABLE, GRIPPER = (25, 25, 30), (240, 240, 240)
OBJECT_RADIUS, GRIPPER_RADIUS = 0.12, 0.06
CELLS = 8  # layouts are told apart by the cells of a grid of 8 x 8 in which gripper and objects are
Position = NDArray[np.float32]  # [2]: x to the right, y up, both in [-0.85, 0.85]
EDGE = 0.85


@dataclass(frozen=True, slots=True)
class ReachObservation:
    """`image` [side, side, 3] uint8, `state` [2] the gripper's position, `instruction` e.g. "reach the red object"."""

    image: NDArray[np.uint8]
    state: Position
    instruction: str


@dataclass(frozen=True, slots=True)
class ReachStep:
    """`success`: the gripper has been within the tolerance of the named object for `hold_steps` steps in a row."""

    observation: ReachObservation
    success: bool
    truncated: bool


class Reach:
    """One table. All randomness comes from `reset(seed)`; same seed and actions, same episode.

    Settings: `side` of the camera's picture in pixels, `objects` on the table, `tolerance` in table units (the table is
    2 wide), `hold_steps`, `max_steps`, `max_step` that the gripper moves at most per step, `split` by layout.
    """

    def __init__(
        self,
        side: int = 32,
        objects: int = 2,
        tolerance: float = 0.1,
        hold_steps: int = 5,
        max_steps: int = 60,
        max_step: float = 0.1,
        split: Split = "all",
    ) -> None:
        check_choice("split", split, ("all", "train", "heldout"))
        if not 1 <= objects <= len(COLOURS):
            raise SettingError(f"objects must lie in 1..{len(COLOURS)}, got {objects}")
        self.side, self.max_step, self.tolerance = side, max_step, tolerance
        self._objects, self._hold_steps, self._max_steps, self._split = objects, hold_steps, max_steps, split
        self._over = True
        axis = (np.arange(side, dtype=np.float32) + 0.5) / side * 2 - 1
        self._pixels = np.stack(np.broadcast_arrays(axis[None, :], -axis[:, None]), 2)  # [side, side, (x, y)]

    def reset(self, seed: int) -> ReachObservation:
        """Starts the episode of a seed (any integer)."""
        rng = random.Random(f"reach/{seed}")
        while True:
            gripper, *objects = [(rng.uniform(-EDGE, EDGE), rng.uniform(-EDGE, EDGE)) for _ in range(self._objects + 1)]
            if _apart(gripper, objects) and in_split(_layout(gripper, objects), self._split):
                break
        self.colours = rng.sample(sorted(COLOURS), self._objects)
        self.positions = np.array(objects, np.float32)  # the first is the one to reach
        self.gripper: Position = np.array(gripper, np.float32)
        self._steps = self._held = 0
        self._over = False
        return self._observe()

    @property
    def target(self) -> Position:
        """Where the named object lies; for the expert and for tests, never part of an observation."""
        position: Position = self.positions[0]
        return position

    def step(self, action: Position) -> ReachStep:
        """Moves towards `action` [2], an absolute position, by at most `max_step`.

        Raises EpisodeOver after the end and before `reset`, ValueError for an action that is not two finite numbers.
        """
        if self._over:
            raise EpisodeOver("the episode is over: call reset")
        wanted = np.asarray(action, np.float32)
        if wanted.shape != (2,) or not np.isfinite(wanted).all():
            raise ValueError(f"an action is two finite numbers, got {action!r}")
        self.gripper = moved(self.gripper, np.clip(wanted, -1, 1), self.max_step)
        self._steps += 1
        near = float(np.linalg.norm(self.gripper - self.target)) <= self.tolerance
        self._held = self._held + 1 if near else 0
        success = self._held >= self._hold_steps
        truncated = not success and self._steps >= self._max_steps
        self._over = success or truncated
        return ReachStep(self._observe(), success, truncated)

    def expert_chunk(self, horizon: int) -> NDArray[np.float32]:
        """[horizon, 2]: straight from where the gripper is to the named object, then staying there."""
        rows, position = [], self.gripper
        for _ in range(horizon):
            position = moved(position, self.target, self.max_step)
            rows.append(position)
        return np.stack(rows)

    def _observe(self) -> ReachObservation:
        return ReachObservation(self.render(), self.gripper.copy(), f"reach the {self.colours[0]} object")

    def render(self) -> NDArray[np.uint8]:
        """The table from above [side, side, 3]; edges are smooth, so that a picture tells more than whole pixels."""
        picture = np.full((self.side, self.side, 3), TABLE, np.float32)
        for colour, position in zip(self.colours, self.positions, strict=True):
            self._draw(picture, position, OBJECT_RADIUS, COLOURS[colour])
        self._draw(picture, self.gripper, GRIPPER_RADIUS, GRIPPER)
        return picture.round().astype(np.uint8)

    def _draw(
        self, picture: NDArray[np.float32], position: Position, radius: float, colour: tuple[int, int, int]
    ) -> None:
        distance = np.linalg.norm(self._pixels - position, axis=2)
        share = np.clip((radius - distance) * self.side / 2 + 0.5, 0, 1)[:, :, None]
        picture += share * (np.array(colour, np.float32) - picture)


def moved(position: Position, wanted: Position, max_step: float) -> Position:
    """`position` moved straight towards `wanted`, by at most `max_step`."""
    way = wanted - position
    distance = float(np.linalg.norm(way))
    if distance <= max_step:
        return wanted.astype(np.float32)
    return (position + way * np.float32(max_step / distance)).astype(np.float32)


def _apart(gripper: tuple[float, float], objects: list[tuple[float, float]]) -> bool:
    """Nothing hides anything, and no episode begins at its end."""
    points = np.array([gripper, *objects])
    distances = np.linalg.norm(points[:, None] - points[None], axis=2)
    return bool((distances[np.triu_indices(len(points), 1)] > 0.4).all())


def _layout(gripper: tuple[float, float], objects: list[tuple[float, float]]) -> str:
    cells = [tuple(int((value + 1) / 2 * CELLS) for value in point) for point in (gripper, *objects)]
    return f"reach/{cells}"
