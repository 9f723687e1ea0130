"""The scripted expert: what it does next, and that it solves the tasks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from envs.robots.arm_control import ArmControl
from envs.robots.arm_expert import CARRY, HOVER, RELEASE, Scene, expected, next_action, plan
from envs.robots.arm_world import ACTION_HIGH, ACTION_LOW

ABOVE = Scene(
    kind="place",
    position=np.array([0.30, 0.0, HOVER]),
    angles=np.zeros(3),
    commanded=1.0,
    opening=1.0,
    goal=np.array([0.30, 0.0, 0.02]),
    turned=0.0,
    held=False,
    bowl=np.array([0.30, -0.15]),
)


def solved(task: str, seed: int, noise: float = 0.0, ahead: int = 1) -> bool:
    control, rng = ArmControl(task, camera=False), np.random.default_rng(seed)
    control.reset(seed)
    while True:
        for action in control.expert_chunk(ahead):
            if rng.random() < noise:
                action = rng.uniform(ACTION_LOW, ACTION_HIGH)
            step = control.step(action)
            if step.success or step.truncated:
                return step.success


@pytest.mark.parametrize("task", ["reach", "pick", "place"])
def test_the_expert_solves_every_table(task: str) -> None:
    pytest.importorskip("mujoco")
    assert all(solved(task, seed) for seed in range(6))


def test_the_expert_solves_what_it_has_planned_eight_steps_ahead() -> None:
    pytest.importorskip("mujoco")
    assert all(solved(task, 1, ahead=8) for task in ("reach", "pick", "place"))


def test_the_expert_finds_back_when_one_action_in_five_is_random() -> None:
    pytest.importorskip("mujoco")
    assert sum(solved("pick", seed, noise=0.2) for seed in range(6)) >= 5


def test_above_the_object_the_hand_goes_straight_down_with_open_fingers() -> None:
    assert next_action(ABOVE) == pytest.approx([0, 0, ACTION_LOW[2], 0, 0, 0, 1])


def test_beside_the_object_the_low_hand_rises_before_it_moves() -> None:
    low = replace(ABOVE, position=np.array([0.20, 0.1, 0.03]))
    assert next_action(low)[:3] == pytest.approx([0, 0, ACTION_HIGH[2]])
    high = replace(low, position=np.array([0.20, 0.1, HOVER]))
    assert next_action(high)[:3] == pytest.approx([ACTION_HIGH[0], ACTION_LOW[1], 0])


def test_the_hand_turns_as_the_object_is_turned_and_stands_upright() -> None:
    tilted = replace(ABOVE, turned=0.2, angles=np.array([0.05, 0.1, 0.0]))
    assert next_action(tilted)[3:6] == pytest.approx([0.1, -0.05, 0.2])


def test_around_the_object_the_fingers_close_and_stay_closed_until_it_is_held() -> None:
    around = replace(ABOVE, position=ABOVE.goal)
    assert next_action(around)[6] == 0
    closing = replace(around, commanded=0.0, opening=0.6)
    assert next_action(closing) == pytest.approx([0, 0, 0, 0, 0, 0, 0])
    missed = replace(closing, opening=0.0)
    assert next_action(missed)[6] == 1


def test_a_held_object_goes_up_then_over_the_bowl_then_down() -> None:
    held = replace(ABOVE, position=np.array([0.30, 0.0, 0.02]), commanded=0.0, opening=0.45, held=True)
    assert next_action(held) == pytest.approx([0, 0, ACTION_HIGH[2], 0, 0, 0, 0])
    high = np.array([0.30, 0.0, CARRY])
    assert next_action(replace(held, position=high, goal=high))[1] == pytest.approx(ACTION_LOW[1])
    over = np.array([0.30, -0.15, CARRY])
    assert next_action(replace(held, position=over, goal=over)) == pytest.approx([0, 0, ACTION_LOW[2], 0, 0, 0, 0])
    low = np.array([0.30, -0.15, RELEASE])
    assert next_action(replace(held, position=low, goal=low))[6] == 1


def test_an_object_in_the_bowl_is_left_alone() -> None:
    done = replace(ABOVE, position=np.array([0.30, -0.15, RELEASE]), goal=np.array([0.30, -0.15, 0.027]))
    assert next_action(done) == pytest.approx([0, 0, ACTION_HIGH[2], 0, 0, 0, 1])


def test_a_plan_leads_from_the_table_into_the_bowl() -> None:
    scene = ABOVE
    actions = plan(scene, 40)
    assert actions.shape == (40, 7)
    assert actions.dtype == np.float32
    assert ((actions >= ACTION_LOW.astype(np.float32)) & (actions <= ACTION_HIGH.astype(np.float32))).all()
    for action in actions:
        scene = expected(scene, action)
    assert scene.goal[:2] == pytest.approx(scene.bowl, abs=0.02)
    assert not scene.held
    assert scene.commanded == 1
