"""The physics of the arm environment: an arm, cubes and a bowl on a table in MuJoCo. Actions change the hand's pose.

Metres and radians throughout; x forward, y left, z up, the table's surface at z = 0. `mujoco` is imported when a world
is first reset.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.base import EnvUsageError

Vector = NDArray[np.float64]

# What one control step may change: BridgeData's smallest and largest action (x, y, z, tilt, roll, rotation, gripper).
ACTION_LOW: Vector = np.array([-0.0308, -0.0306, -0.0392, -0.1953, -0.1661, -0.2721, 0.0])
ACTION_HIGH: Vector = np.array([0.0263, 0.0338, 0.0423, 0.1727, 0.1619, 0.2940, 1.0])

OBJECT_HALF = 0.02  # half the edge of a cube
FINGER_TRAVEL = 0.04  # of each finger; open, there are 8 cm between them
PROPRIO_OPEN = 0.39  # what the state calls an open gripper
BOWL_RADIUS, BOWL_RIM = 0.045, 0.045  # an object whose centre is within both is in the bowl
RESTING_SPEED = 0.05  # m/s

# Where the target of the gripper's point may go. The fingers reach 1.2 cm beyond it: they stay above the table.
WORKSPACE_LOW: Vector = np.array([0.15, -0.32, 0.014])
WORKSPACE_HIGH: Vector = np.array([0.50, 0.32, 0.40])
ANGLE_LIMIT: Vector = np.array([0.6, 0.6, 1.7])  # of (rx, ry, rz)
# The target never leads the hand by more: an arm that pushes against something does not store up motion.
LEAD: Vector = np.array([0.05, 0.05, 0.05, 0.4, 0.4, 0.4])

SUBSTEPS, SEGMENTS, RAMP = 10, 5, 3  # 5 x 10 steps of 4 ms are 0.2 s; the joints' targets move during 3 of the 5
HOME: Vector = np.array([0.0, 0.0, 0.3, 0.0, 1.27, 0.0])  # joint angles with the hand over the table, pointing down
DOWN: Vector = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])  # the hand's axes while it points down
JOINTS, FINGERS = slice(0, 6), slice(6, 8)  # in qpos and qvel; after them 7 (6) numbers per object
IK_ITERATIONS, IK_DAMPING, IK_MOST = 10, 0.02, 0.3


@dataclass(frozen=True, slots=True)
class Layout:
    """Where an episode begins: `objects` (x, y, rotation about z) of two or three cubes, `bowl` (x, y), `hand` (x, y,
    z) of the gripper's point."""

    objects: tuple[tuple[float, float, float], ...]
    bowl: tuple[float, float]
    hand: tuple[float, float, float]

    def __post_init__(self) -> None:
        if not 2 <= len(self.objects) <= 3:
            raise ValueError(f"a table has two or three objects, got {len(self.objects)}")


@lru_cache(maxsize=2)
def model_of(objects: int) -> Any:
    """The compiled model with so many cubes; never written to, so that all worlds of a process share it.

    Raises EnvUsageError where mujoco is not installed.
    """
    try:
        import mujoco
    except ImportError as error:
        raise EnvUsageError("the environment arm needs MuJoCo: pip install rayward[robots]") from error
    spec = mujoco.MjSpec.from_file(str(Path(__file__).with_name("arm.xml")))
    for surplus in range(objects, 3):
        spec.delete(spec.body(f"object_{surplus}"))
    return spec.compile()


class ArmWorld:
    """One table. The same layout and actions give the same states, bit for bit. It can be pickled at any time."""

    layout: Layout

    def reset(self, layout: Layout) -> None:
        """Puts everything in its place; the gripper is open and points down, its fingers left and right."""
        self._load(layout)
        data = self.data
        for number, (x, y, rotation) in enumerate(layout.objects):
            start = 8 + 7 * number
            data.qpos[start : start + 7] = x, y, OBJECT_HALF, np.cos(rotation / 2), 0, 0, np.sin(rotation / 2)
        data.mocap_pos[0] = *layout.bowl, 0.0
        self._target = np.array([*layout.hand, 0.0, 0.0, 0.0])  # x, y, z, rx, ry, rz
        self._joints = self._solved(HOME, iterations=60)
        self._gripper = 1.0
        data.qpos[JOINTS], data.qpos[FINGERS] = self._joints, FINGER_TRAVEL
        data.ctrl[:] = *self._joints, FINGER_TRAVEL
        self._mujoco.mj_forward(self.model, data)

    def _load(self, layout: Layout) -> None:
        self.model = model_of(len(layout.objects))
        import mujoco

        self._mujoco, self.layout = mujoco, layout
        self.data, self._probe = mujoco.MjData(self.model), mujoco.MjData(self.model)
        self._pinch = self.model.site("pinch").id
        self._fingers = [self.model.geom(name).id for name in ("left_finger", "right_finger")]
        self._cubes = [self.model.geom(f"object_{number}").id for number in range(len(layout.objects))]

    # -- moving --------------------------------------------------------------------------------------------------------

    def act(self, action: Vector) -> None:
        """One control step of 0.2 s. `action` [7], clipped to ACTION_LOW..ACTION_HIGH: changes of x, y, z, tilt, roll
        and rotation, and how far the gripper is to be open (1 open .. 0 closed)."""
        dx, dy, dz, tilt, roll, rotation, gripper = np.clip(action, ACTION_LOW, ACTION_HIGH)
        hand = np.concatenate([self.position, self.angles])
        wanted = self._target + np.array([dx, dy, dz, roll, -tilt, rotation])
        wanted[:3] = np.clip(wanted[:3], WORKSPACE_LOW, WORKSPACE_HIGH)
        wanted[3:] = np.clip(wanted[3:], -ANGLE_LIMIT, ANGLE_LIMIT)
        self._target = np.clip(wanted, hand - LEAD, hand + LEAD)
        self._gripper = float(gripper)
        self._run(self._solved(self._joints, IK_ITERATIONS))

    def hold(self) -> None:
        """One control step in which no target changes."""
        self._run(self._joints)

    def _run(self, joints: Vector) -> None:
        data, before = self.data, self._joints
        data.ctrl[6] = self._gripper * FINGER_TRAVEL
        for segment in range(1, SEGMENTS + 1):
            data.ctrl[JOINTS] = before + min(segment / RAMP, 1.0) * (joints - before)
            self._mujoco.mj_step(self.model, data, SUBSTEPS)
        self._joints = joints
        self._mujoco.mj_fwdPosition(self.model, data)  # poses and contacts of the state that was reached

    def _solved(self, joints: Vector, iterations: int) -> Vector:
        """[6] joint angles that bring the gripper's point to the target, from `joints` on: damped least squares,
        dq = J' (J J' + damping^2 I)^-1 error, each step bounded, within the joints' limits."""
        mujoco, model, probe = self._mujoco, self.model, self._probe
        low, high = model.jnt_range[JOINTS].T
        turned = rotation_of(self._target[3:])
        jacobian, gram, error = np.zeros((6, model.nv)), np.zeros((6, 6)), np.zeros(6)
        change = np.zeros(6)
        for _ in range(iterations):
            probe.qpos[JOINTS] = joints
            mujoco.mj_kinematics(model, probe)
            mujoco.mj_comPos(model, probe)
            still = turned @ probe.site_xmat[self._pinch].reshape(3, 3).T  # the rotation that is still to be made
            error[:3] = self._target[:3] - probe.site_xpos[self._pinch]
            error[3:] = still[2, 1] - still[1, 2], still[0, 2] - still[2, 0], still[1, 0] - still[0, 1]
            error[3:] /= 2  # the axis times the sine of the angle
            if np.abs(error).max() < 1e-5:
                break
            mujoco.mj_jacSite(model, probe, jacobian[:3], jacobian[3:], self._pinch)
            part = np.ascontiguousarray(jacobian[:, JOINTS])
            mujoco.mju_mulMatMatT(gram, part, part)  # MuJoCo's own algebra: numpy's differs between machines
            gram[np.diag_indices(6)] += IK_DAMPING**2
            mujoco.mju_cholFactor(gram, 0.0)
            mujoco.mju_cholSolve(error, gram, error.copy())
            mujoco.mju_mulMatTVec(change, part, error)
            joints = np.clip(joints + np.clip(change, -IK_MOST, IK_MOST), low, high)
        return joints

    # -- what the state tells ------------------------------------------------------------------------------------------

    @property
    def position(self) -> Vector:
        """[3] of the gripper's point, between the fingers 1.2 cm behind their tips."""
        return np.array(self.data.site_xpos[self._pinch])

    @property
    def angles(self) -> Vector:
        """[3] rx, ry, rz of the hand; see `rotation_of`."""
        return angles_of(self.data.site_xmat[self._pinch].reshape(3, 3))

    @property
    def opening(self) -> float:
        """0 closed .. 1 open, as measured."""
        return float(np.clip(self.data.qpos[FINGERS].mean() / FINGER_TRAVEL, 0, 1))

    @property
    def commanded(self) -> float:
        """0 closed .. 1 open, as the last action said."""
        return self._gripper

    def proprio(self) -> NDArray[np.float32]:
        """[8]: x, y, z, rx, ry, rz, 0, gripper (0 closed .. 0.39 open)."""
        return np.array([*self.position, *self.angles, 0.0, self.opening * PROPRIO_OPEN], np.float32)

    def object_position(self, number: int) -> Vector:
        """[3] of an object's centre."""
        return np.array(self.data.qpos[8 + 7 * number : 11 + 7 * number])

    def object_rotation(self, number: int) -> float:
        """About z, to the nearest quarter turn: -pi/4 .. pi/4. A cube looks the same after a quarter turn."""
        w, x, y, z = self.data.qpos[11 + 7 * number : 15 + 7 * number]
        rotation = np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
        return float((rotation + np.pi / 4) % (np.pi / 2) - np.pi / 4)

    def object_speed(self, number: int) -> float:
        """m/s of an object's centre."""
        return float(np.linalg.norm(self.data.qvel[8 + 6 * number : 11 + 6 * number]))

    def _touching(self, number: int) -> int:
        """How many of the two fingers touch an object."""
        pairs = self.data.contact.geom
        others = pairs[(pairs == self._cubes[number]).any(axis=1)]
        return sum(bool((others == finger).any()) for finger in self._fingers)

    def held(self, number: int) -> bool:
        """Whether both fingers touch the object."""
        return self._touching(number) == 2

    def in_bowl(self, number: int) -> bool:
        x, y, z = self.object_position(number)
        return bool(np.hypot(x - self.layout.bowl[0], y - self.layout.bowl[1]) < BOWL_RADIUS and z < BOWL_RIM)

    def placed(self, number: int) -> bool:
        """Whether the object rests in the bowl, touched by no finger, and the gripper is open."""
        let_go = self._gripper >= 0.5 and self._touching(number) == 0
        return let_go and self.in_bowl(number) and self.object_speed(number) < RESTING_SPEED

    # -- pickling ------------------------------------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        if not hasattr(self, "layout"):
            return {}
        kind = self._mujoco.mjtState.mjSTATE_INTEGRATION
        physics = np.empty(self._mujoco.mj_stateSize(self.model, kind))
        self._mujoco.mj_getState(self.model, self.data, physics, kind)
        return {
            "layout": self.layout,
            "physics": physics,
            "target": self._target,
            "joints": self._joints,
            "gripper": self._gripper,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        if not state:
            return
        self._load(state["layout"])
        self._target, self._joints, self._gripper = state["target"], state["joints"], state["gripper"]
        self._mujoco.mj_setState(self.model, self.data, state["physics"], self._mujoco.mjtState.mjSTATE_INTEGRATION)
        self._mujoco.mj_fwdPosition(self.model, self.data)


def rotation_of(angles: Vector) -> Vector:
    """[3, 3] axes of the hand for `angles` (rx, ry, rz): Ry(ry) Rx(rx) Rz(rz) applied to a hand that points down. rz
    turns the gripper about its own axis, counterclockwise seen from above; rx and ry are right-handed about the base's
    x and y.

    >>> rotation_of(np.zeros(3))[:, 0].tolist()  # the hand's x axis runs from the wrist to the finger tips
    [0.0, 0.0, -1.0]
    """
    (sx, sy, sz), (cx, cy, cz) = np.sin(angles), np.cos(angles)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    axes: Vector = about_y @ about_x @ about_z @ DOWN
    return axes


def angles_of(axes: Vector) -> Vector:
    """[3] (rx, ry, rz) of `axes` [3, 3]: the inverse of `rotation_of` for |rx| < pi/2."""
    turned = axes @ DOWN.T
    rx = np.arcsin(np.clip(-turned[1, 2], -1, 1))
    return np.array([rx, np.arctan2(turned[0, 2], turned[2, 2]), np.arctan2(turned[1, 0], turned[1, 1])])
