"""The arm's scripted expert: above the object, down, close, up, over the bowl, open. It looks at the state again before
every action, so that it finds back after a disturbance; what it plans ahead rests on a simple idea of what happens."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from envs.robots.arm_world import (
    ACTION_HIGH,
    ACTION_LOW,
    BOWL_RADIUS,
    OBJECT_HALF,
    WORKSPACE_HIGH,
    WORKSPACE_LOW,
    ArmWorld,
    Vector,
)

HOVER, CARRY, RELEASE = 0.10, 0.14, 0.08  # heights of the gripper's point
ALIGNED, TURNED = 0.008, 0.08  # metres and radians to the object, below which the hand goes down
HELD_OPENING = 0.45  # of a gripper around a cube
MISSED_OPENING = 0.3  # a gripper that is closed further holds nothing


@dataclass(frozen=True, slots=True)
class Scene:
    """What the expert goes by: the hand's `position` [3] and `angles` [3], the gripper as `commanded` and as measured
    (`opening`, 0 closed .. 1 open), the named object's `goal` [3] and `turned`, whether it is `held`, and the `bowl`
    [2]."""

    kind: str
    position: Vector
    angles: Vector
    commanded: float
    opening: float
    goal: Vector
    turned: float
    held: bool
    bowl: Vector


def seen(kind: str, world: ArmWorld) -> Scene:
    return Scene(
        kind=kind,
        position=world.position,
        angles=world.angles,
        commanded=world.commanded,
        opening=world.opening,
        goal=world.object_position(0),
        turned=world.object_rotation(0),
        held=world.held(0),
        bowl=np.array(world.layout.bowl),
    )


def plan(scene: Scene, horizon: int) -> NDArray[np.float32]:
    """[horizon, 7] actions from `scene` on, if everything goes as expected."""
    actions = []
    for _ in range(horizon):
        actions.append(next_action(scene))
        scene = expected(scene, actions[-1])
    return np.stack(actions).astype(np.float32)


def next_action(scene: Scene) -> Vector:
    """[7], within the bounds of an action."""
    closing = scene.commanded < 0.5
    if scene.kind == "reach":
        return _towards(scene, _approach(scene), 1.0)
    if scene.kind == "place" and not (scene.held and closing) and _flat(scene.goal, scene.bowl) < BOWL_RADIUS:
        return _towards(scene, _at(scene.position, CARRY), 1.0)  # it lies or falls where it should
    if closing and scene.held:
        return _carried(scene)
    if closing:  # the fingers are on their way, unless they have missed
        return _towards(scene, scene.position, float(scene.opening < MISSED_OPENING or not _around(scene)))
    return _towards(scene, _approach(scene), 0.0 if _around(scene) else 1.0)


def expected(scene: Scene, action: Vector) -> Scene:
    """The scene after an action: the hand does as it is told; the object moves with it while it is held, and falls
    straight down."""
    dx, dy, dz, tilt, roll, rotation, gripper = action
    position = np.clip(scene.position + np.array([dx, dy, dz]), WORKSPACE_LOW, WORKSPACE_HIGH)
    held = gripper < 0.5 and (scene.held or _around(scene))
    goal = scene.goal + (position - scene.position) if held else _at(scene.goal, OBJECT_HALF)
    return replace(
        scene,
        position=position,
        angles=scene.angles + np.array([roll, -tilt, rotation]),
        commanded=float(gripper),
        opening=HELD_OPENING if held else float(gripper),
        goal=goal,
        held=held,
    )


def _approach(scene: Scene) -> Vector:
    """Where the hand goes next on its way around the object."""
    off = _flat(scene.goal, scene.position)
    if off < ALIGNED and abs(scene.turned - scene.angles[2]) < TURNED:
        return scene.goal
    if off > 2 * ALIGNED and scene.position[2] < HOVER - 0.02:  # up first: other cubes stand on the way
        return _at(scene.position, HOVER)
    return _at(scene.goal, min(HOVER, max(scene.position[2], scene.goal[2])) if off < 2 * ALIGNED else HOVER)


def _carried(scene: Scene) -> Vector:
    """The action while the object is held: up, and with a bowl to fill over it, down and open."""
    if scene.kind == "pick":
        return _towards(scene, _at(scene.position, CARRY), 0.0)
    over = np.array([*(scene.bowl - scene.goal[:2]), 0.0]) + scene.position  # the object, not the hand, above the bowl
    if _flat(scene.goal, scene.bowl) < 2 * ALIGNED:
        low = scene.position[2] < RELEASE + 0.01
        return _towards(scene, _at(over, RELEASE), float(low))
    if scene.position[2] < CARRY - 0.03:
        return _towards(scene, _at(scene.position, CARRY), 0.0)
    return _towards(scene, _at(over, CARRY), 0.0)


def _around(scene: Scene) -> bool:
    """Whether the fingers are around the object, low enough to close."""
    return _flat(scene.goal, scene.position) < 2 * ALIGNED and abs(scene.goal[2] - scene.position[2]) < ALIGNED


def _towards(scene: Scene, point: Vector, gripper: float) -> Vector:
    """The action that brings the hand nearest to `point`, upright and turned as the object is."""
    rx, ry, rz = scene.angles
    wanted = np.array([*(point - scene.position), ry, -rx, scene.turned - rz, gripper])
    action: Vector = np.clip(wanted, ACTION_LOW, ACTION_HIGH)
    return action


def _at(point: Vector, height: float) -> Vector:
    return np.array([point[0], point[1], height])


def _flat(one: Vector, other: Vector) -> float:
    """Distance seen from above."""
    return float(np.hypot(one[0] - other[0], one[1] - other[1]))
