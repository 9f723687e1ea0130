"""The physics: the hand goes where it is told, and what is held is held by friction."""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.base import EnvUsageError
from envs.robots.arm_world import (
    ACTION_HIGH,
    ACTION_LOW,
    ANGLE_LIMIT,
    ArmWorld,
    Layout,
    angles_of,
    model_of,
    rotation_of,
)

ROOT = Path(__file__).resolve().parents[4]
OPEN, CLOSED = 1.0, 0.0
# Object 0 below the hand, its sides along x and y; the bowl on the right.
BELOW = Layout(objects=((0.30, 0.0, 0.0), (0.30, 0.15, 0.3)), bowl=(0.30, -0.15), hand=(0.30, 0.0, 0.10))


def table(layout: Layout = BELOW) -> ArmWorld:
    pytest.importorskip("mujoco")
    world = ArmWorld()
    world.reset(layout)
    return world


def act(world: ArmWorld, *action: float, steps: int = 1) -> ArmWorld:
    for _ in range(steps):
        world.act(np.array(action))
    return world


def grasped() -> ArmWorld:
    """Object 0 in the gripper, 10 cm above where it lay."""
    world = act(table(), 0, 0, -0.02, 0, 0, 0, OPEN, steps=4)
    act(world, 0, 0, 0, 0, 0, 0, CLOSED, steps=2)
    return act(world, 0, 0, 0.025, 0, 0, 0, CLOSED, steps=4)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("way", [-0.02, 0.02])
def test_the_gripper_moves_along_an_axis_by_what_the_action_says(axis: int, way: float) -> None:
    world = table()
    before = world.position
    action = np.zeros(7)
    action[axis], action[6] = way, OPEN
    act(world, *action, steps=2)
    wanted = before + np.eye(3)[axis] * 2 * way
    assert world.position == pytest.approx(wanted, abs=0.003)
    assert world.angles == pytest.approx(np.zeros(3), abs=0.01)


def test_tilt_up_lifts_the_finger_tips_forward() -> None:
    world = act(table(), 0, 0, 0, 0.15, 0, 0, OPEN)
    tips = rotation_of(world.angles)[:, 0]  # from the wrist to the tips; (0, 0, -1) before
    assert tips == pytest.approx([np.sin(0.15), 0, -np.cos(0.15)], abs=0.01)


def test_roll_up_lifts_the_finger_tips_to_the_left() -> None:
    world = act(table(), 0, 0, 0, 0, 0.15, 0, OPEN)
    assert rotation_of(world.angles)[:, 0] == pytest.approx([0, np.sin(0.15), -np.cos(0.15)], abs=0.01)


def test_rotation_turns_the_gripper_counterclockwise_seen_from_above() -> None:
    world = act(table(), 0, 0, 0, 0, 0, 0.25, OPEN)
    left = rotation_of(world.angles)[:, 1]  # the way from the right finger to the left one; (0, 1, 0) before
    assert left == pytest.approx([-np.sin(0.25), np.cos(0.25), 0], abs=0.01)


def test_the_state_says_how_far_the_gripper_is_open() -> None:
    world = table()
    assert world.proprio().dtype == np.float32
    assert world.proprio() == pytest.approx([0.30, 0.0, 0.10, 0, 0, 0, 0, 0.39], abs=1e-3)
    act(world, 0, 0, 0, 0, 0, 0, CLOSED, steps=3)
    assert world.proprio()[7] == pytest.approx(0.0, abs=0.005)
    act(world, 0, 0, 0, 0, 0, 0, 0.5, steps=3)
    assert world.proprio()[7] == pytest.approx(0.195, abs=0.005)


def test_an_action_beyond_the_bounds_does_what_the_bounds_allow() -> None:
    for bounds, factor in ((ACTION_HIGH, 9.0), (ACTION_LOW, 9.0)):
        far, near = act(table(), *(bounds * factor)), act(table(), *bounds)
        assert (far.data.qpos == near.data.qpos).all()


def test_the_bounds_are_those_of_the_serving_side() -> None:
    axes = json.loads((ROOT / "deployments/acting/arm/bridge.json").read_text())
    names = ["x", "y", "z", "tilt", "roll", "rotation"]
    actions = [axes[name]["actions"] for name in names]
    assert ACTION_LOW[:6].tolist() == [each["min"] for each in actions]
    assert ACTION_HIGH[:6].tolist() == [each["max"] for each in actions]


def test_pushing_against_the_bowl_stores_no_motion() -> None:
    """Ten steps would be 30 cm; the first steps back must move the fingers all the same."""
    world = act(
        table(Layout(((0.30, 0.12, 0.0), (0.40, 0.2, 0.3)), (0.30, -0.15), (0.30, 0.0, 0.04))), *[0] * 6, CLOSED
    )
    act(world, 0, 0, -0.02, 0, 0, 0, CLOSED)
    act(world, 0, -0.03, 0, 0, 0, 0, CLOSED, steps=10)
    stopped = world.position[1]
    assert -0.12 < stopped < -0.03
    assert act(world, 0, 0.03, 0, 0, 0, 0, CLOSED, steps=3).position[1] > stopped + 0.02


def test_pushing_against_the_table_stores_no_motion() -> None:
    """Ten steps down would be 39 cm; the first step up must lift the fingers all the same."""
    world = act(table(), 0, 0, -0.0392, 0, 0, 0, CLOSED, steps=10)
    low = world.position[2]
    assert act(world, 0, 0, 0.03, 0, 0, 0, CLOSED, steps=2).position[2] > low + 0.02


def test_the_hand_turns_no_further_than_its_limits() -> None:
    world = act(table(), 0, 0, 0.02, 0, 0, 0.29, OPEN, steps=4)
    act(world, 0, 0, 0, 0, 0, 0.29, OPEN, steps=8)
    assert world.angles[2] == pytest.approx(ANGLE_LIMIT[2], abs=0.02)


def test_what_is_held_is_held_by_friction_alone() -> None:
    world = grasped()
    assert world.held(0)
    assert world.object_position(0)[2] == pytest.approx(0.12, abs=0.01)
    act(world, 0, 0, 0, 0, 0, 0, OPEN, steps=3)
    assert not world.held(0)
    assert world.object_position(0)[2] == pytest.approx(0.02, abs=0.002)


def test_a_held_object_does_not_creep_out_of_the_gripper() -> None:
    world = grasped()
    below = world.object_position(0) - world.position
    act(world, 0, 0, 0, 0, 0, 0, CLOSED, steps=50)
    assert world.object_position(0) - world.position == pytest.approx(below, abs=0.003)


def test_an_object_is_placed_once_it_rests_in_the_bowl_and_is_let_go() -> None:
    world = act(grasped(), 0, -0.03, 0, 0, 0, 0, CLOSED, steps=5)
    assert world.object_position(0)[:2] == pytest.approx(BELOW.bowl, abs=0.02)
    assert not world.in_bowl(0)  # it is above it
    act(world, 0, 0, -0.025, 0, 0, 0, CLOSED, steps=3)
    assert world.in_bowl(0)
    assert not world.placed(0)
    act(world, 0, 0, 0, 0, 0, 0, OPEN)
    act(world, 0, 0, 0.04, 0, 0, 0, OPEN, steps=3)
    assert world.placed(0)
    act(world, 0, 0, 0, 0, 0, 0, CLOSED)
    assert not world.placed(0)  # the gripper is to be open


def test_a_cube_looks_the_same_after_a_quarter_turn() -> None:
    turned = Layout(((0.30, 0.0, 0.2 + np.pi / 2), (0.30, 0.15, -0.3)), (0.30, -0.15), (0.30, 0.0, 0.10))
    world = table(turned)
    assert world.object_rotation(0) == pytest.approx(0.2)
    assert world.object_rotation(1) == pytest.approx(-0.3)


def test_the_same_actions_give_the_same_states_bit_for_bit() -> None:
    rng = np.random.default_rng(0)
    actions = rng.uniform(ACTION_LOW, ACTION_HIGH, (12, 7))
    one, other = table(), table()
    for action in actions:
        one.act(action)
        other.act(action)
    assert (one.data.qpos == other.data.qpos).all()
    assert (one.data.qvel == other.data.qvel).all()


def test_a_world_goes_on_after_pickling_with_an_object_in_its_hand() -> None:
    world = grasped()
    copy = pickle.loads(pickle.dumps(world))
    assert copy.held(0)
    for each in (world, copy):
        each.hold()
        act(each, 0.01, 0.02, 0.01, 0, 0.05, 0.1, CLOSED, steps=3)
    assert (copy.data.qpos == world.data.qpos).all()
    assert (copy.data.qvel == world.data.qvel).all()


def test_a_world_can_be_pickled_before_its_first_reset() -> None:
    pytest.importorskip("mujoco")
    world = pickle.loads(pickle.dumps(ArmWorld()))
    world.reset(BELOW)
    assert (world.data.qpos == table().data.qpos).all()


def test_violent_actions_leave_the_simulation_finite() -> None:
    world, rng = table(), np.random.default_rng(1)
    for _ in range(60):
        world.act(np.where(rng.random(7) < 0.5, ACTION_LOW, ACTION_HIGH))
    assert np.isfinite(world.data.qpos).all()
    assert [warning.number for warning in world.data.warning] == [0] * len(world.data.warning)


def test_without_mujoco_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    model_of.cache_clear()
    monkeypatch.setitem(sys.modules, "mujoco", None)
    with pytest.raises(EnvUsageError, match=r"pip install rayward\[robots\]"):
        ArmWorld().reset(BELOW)


@pytest.mark.parametrize("count", [0, 1, 4])
def test_a_table_has_two_or_three_objects(count: int) -> None:
    with pytest.raises(ValueError, match=f"two or three objects, got {count}"):
        Layout(((0.3, 0.0, 0.0),) * count, (0.3, -0.15), (0.3, 0.0, 0.1))


@given(st.tuples(st.floats(-1.5, 1.5), st.floats(-3, 3), st.floats(-3, 3)))
def test_the_angles_are_read_back_from_the_axes(angles: tuple[float, float, float]) -> None:
    assert angles_of(rotation_of(np.array(angles))) == pytest.approx(angles, abs=1e-6)
