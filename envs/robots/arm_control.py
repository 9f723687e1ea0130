"""The arm for chunk policies: numbers in, a picture and a state out, in the manner of envs.robots.reach."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from envs.base import EpisodeOver, SettingError, Split, check_choice
from envs.robots.arm_camera import COLOURS, Camera, Picture
from envs.robots.arm_expert import plan, seen
from envs.robots.arm_tasks import HOLD_STEPS, MAX_STEPS, TASKS, Task, holds, task_of
from envs.robots.arm_world import ArmWorld

State = Literal["proprio", "estimated"]


@dataclass(frozen=True, slots=True)
class ArmObservation:
    """`image` [side, side, 3] uint8, None without a camera; `state` [8]: x, y, z, rx, ry, rz, 0, gripper (0 closed ..
    0.39 open), or [16] as `ArmControl`'s setting `state` says; `instruction`, e.g. "pick up the red cube"."""

    image: Picture | None
    state: NDArray[np.float32]
    instruction: str


@dataclass(frozen=True, slots=True)
class ArmStep:
    """`success`: the task's condition has held for its number of steps. `truncated`: the steps are used up."""

    observation: ArmObservation
    success: bool
    truncated: bool


class ArmControl:
    """One table. All randomness comes from `reset(seed)`; same seed and actions, same episode.

    Settings: `task` (reach, pick, place, or mixed: drawn by the seed), `side` of the picture in pixels, `camera`
    (False: no pictures), `max_steps` (None: 40, 60 and 100 of the three tasks), `split` by the cells of cubes and bowl,
    `state` (proprio: the arm's own 8 numbers; estimated: 16, see `estimated_state`).
    """

    def __init__(
        self,
        task: str = "mixed",
        side: int = 256,
        camera: bool = True,
        max_steps: int | None = None,
        split: Split = "all",
        state: State = "proprio",
    ) -> None:
        check_choice("state", state, ("proprio", "estimated"))
        check_choice("task", task, (*TASKS, "mixed"))
        check_choice("split", split, ("all", "train", "heldout"))
        if max_steps is not None and max_steps < 1:
            raise SettingError(f"max_steps must be at least 1, got {max_steps}")
        self.world = ArmWorld()
        self._kind, self._max_steps, self._split, self._state = task, max_steps, split, state
        self._takes_pictures, self._camera = camera, Camera(side)
        self._over = True

    @property
    def horizon(self) -> int:
        """Most steps of any episode."""
        return self._max_steps or max(MAX_STEPS[kind] for kind in TASKS if self._kind in (kind, "mixed"))

    def reset(self, seed: int) -> ArmObservation:
        """Starts the episode of a seed (any integer). Raises EnvUsageError where MuJoCo is not installed."""
        self.task: Task = task_of(seed, self._kind, self._split)
        self.world.reset(self.task.layout)
        self._steps = self._held = 0
        self._over = False
        return self._observe()

    def step(self, action: ArrayLike | None) -> ArmStep:
        """Plays one action [7] for 0.2 s; None changes no target.

        The numbers are x, y, z (metres), tilt, roll, rotation (radians) and the gripper (1 open, 0 closed): the order
        that a server gives with its default `action_order`. Each is clipped to BridgeData's bounds.

        Raises EpisodeOver after the end and before `reset`, ValueError for an action that is not seven finite numbers.
        """
        if self._over:
            raise EpisodeOver("the episode is over: call reset")
        if action is None:
            self.world.hold()
        else:
            wanted = np.asarray(action, np.float64)
            if wanted.shape != (7,) or not np.isfinite(wanted).all():
                raise ValueError(f"an action is seven finite numbers, got {action!r}")
            self.world.act(wanted)
        self._steps += 1
        self._held = self._held + 1 if holds(self.task.kind, self.world) else 0
        success = self._held >= HOLD_STEPS[self.task.kind]
        truncated = not success and self._steps >= (self._max_steps or MAX_STEPS[self.task.kind])
        self._over = success or truncated
        return ArmStep(self._observe(), success, truncated)

    def expert_chunk(self, horizon: int) -> NDArray[np.float32]:
        """[horizon, 7]: what the scripted expert does from here."""
        return plan(seen(self.task.kind, self.world), horizon)

    def _observe(self) -> ArmObservation:
        image = self.render() if self._takes_pictures else None
        state = self.world.proprio() if self._state == "proprio" else estimated_state(self.world)
        return ArmObservation(image, state, self.task.instruction)

    def render(self) -> Picture:
        """The camera's picture [side, side, 3], also where observations have none."""
        return self._camera.picture(self.world, tuple(COLOURS[name] for name in self.task.colours))


def estimated_state(world: ArmWorld) -> NDArray[np.float32]:
    """[16]: what a robot with a pose estimator and a memory of its last command knows. The arm's own 8 numbers; from
    the gripper's point to the named cube x, y, z, and by how much the cube is turned against the hand (radians); from
    the cube to the bowl x, y; the height of the cube's centre; and how far the gripper was told to open, 0 to 1."""
    cube = world.object_position(0)
    turned = world.object_rotation(0) - world.angles[2]
    to_bowl = np.array(world.layout.bowl) - cube[:2]
    known = (*world.proprio(), *(cube - world.position), turned, *to_bowl, cube[2], world.commanded)
    return np.array(known, np.float32)
