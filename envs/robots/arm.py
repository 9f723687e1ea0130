"""Arm: a 6-joint arm with a gripper reaches for cubes on a table, picks and places them. MuJoCo computes the physics.

The text and the picture tell what a policy needs: the instruction names a cube by its colour, and only the picture
tells where it is. `envs.robots.arm_control` is the same table for policies that answer with numbers.
"""

from __future__ import annotations

import math
import random
import re

import numpy as np
from numpy.typing import NDArray

from envs.base import Env, EnvSpec, Observation, Split, StepResult
from envs.parsing import tag_content
from envs.robots.arm_control import ArmControl, ArmObservation
from envs.robots.arm_world import ACTION_HIGH, ACTION_LOW

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII)


class Arm(Env):
    """Settings: `task` (reach, pick, place, or mixed: drawn by the seed), `side` of the picture in pixels, `camera`
    (False: no pictures), `max_steps` (None: 40, 60 and 100 of the three tasks), `split` by the cells of cubes and bowl.

    An answer is `<action>[x, y, z, tilt, roll, rotation, gripper]</action>`: by how many metres the gripper's point
    moves forward, to the left and up, by how many radians the hand turns, and the gripper, 1 open .. 0 closed. Values
    beyond BridgeData's bounds are clipped. A server of arm policies answers in this order as long as its setting
    `action_order` is the default.

    An answer that cannot be read costs a step, in which the arm stays where it is. The reward is 1 for success.
    """

    blocking = True  # MuJoCo computes for milliseconds and lets other threads run meanwhile

    def __init__(
        self,
        task: str = "mixed",
        side: int = 256,
        camera: bool = True,
        max_steps: int | None = None,
        split: Split = "all",
    ) -> None:
        self._control = ArmControl(task, side, camera, max_steps, split)
        self.spec = EnvSpec(
            name="arm",
            one_line="an arm with a gripper reaches, picks and places cubes on a table (MuJoCo)",
            system_prompt=(
                "You move a robot arm over a table. Answer <action>[x, y, z, tilt, roll, rotation, gripper]</action>: "
                "metres forward, left and up (at most 0.03), radians of tilt up, roll up and counterclockwise rotation "
                "(at most 0.15), and the gripper, 1 for open and 0 for closed."
            ),
            action_regex=r"<action>\[(-?[0-9]\.[0-9]{1,4}, ){6}[01](\.[0-9]{1,4})?\]</action>",
            horizon=self._control.horizon,
            best_return=1.0,
            best_success=1.0,
            failure_return=0.0,
            image=camera,
        )

    @property
    def control(self) -> ArmControl:
        """The episode as numbers; for tests and tools."""
        return self._control

    def reset(self, seed: int) -> Observation:
        """Raises EnvUsageError where MuJoCo is not installed."""
        return _shown(self._control.reset(seed))

    def step(self, action: str) -> StepResult:
        numbers = numbers_of(action)
        played = self._control.step(numbers)
        parsed = numbers is not None
        info = {"parse_ok": parsed, "illegal": not parsed}
        reward = float(played.success)
        return StepResult(_shown(played.observation), reward, played.success, played.truncated, played.success, info)

    def expert_action(self, rng: random.Random, noise: float = 0.0, illegal_noise: float = 0.0) -> str:
        """The scripted expert's next action; with `noise` and `illegal_noise` a share of actions from anywhere within
        the bounds (no action is forbidden)."""
        if rng.random() < noise + illegal_noise:
            return answer(np.array([rng.uniform(*bounds) for bounds in zip(ACTION_LOW, ACTION_HIGH, strict=True)]))
        return answer(self._control.expert_chunk(1)[0])

    def render(self) -> NDArray[np.uint8]:
        return self._control.render()


def numbers_of(text: str) -> NDArray[np.float64] | None:
    """[7] of the text's last `<action>`; None unless there are seven finite numbers in brackets.

    >>> numbers_of("<action>[0.01, 0, 0, 0, 0, 0, 1]</action>").tolist()
    [0.01, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]
    >>> numbers_of("<action>[0.01, 0]</action>") is None
    True
    """
    content = tag_content(text, "action") or ""
    parts = [part.strip() for part in content[1:-1].split(",")]
    if content[:1] + content[-1:] != "[]" or len(parts) != 7 or not all(map(NUMBER.fullmatch, parts)):
        return None
    numbers = [float(part) for part in parts]
    return np.array(numbers) if all(map(math.isfinite, numbers)) else None


def answer(action: NDArray[np.floating]) -> str:
    """The text of an action [7], to a tenth of a millimetre."""
    return f"<action>[{', '.join(_written(value, 4) for value in action)}]</action>"


def _written(value: float, digits: int) -> str:
    """Without the sign of a zero."""
    return f"{round(float(value), digits) + 0.0:.{digits}f}"


def _shown(observation: ArmObservation) -> Observation:
    x, y, z = (_written(value, 3) for value in observation.state[:3])
    rx, ry, rz, _, gripper = (_written(value, 2) for value in observation.state[3:])
    text = (
        f"Task: {observation.instruction}. Gripper at x {x}, y {y}, z {z}, turned {rx}, {ry}, {rz}, opening {gripper}."
    )
    return Observation(text, image=observation.image)
