"""The expert's next turn, where it can be seen by hand."""

from __future__ import annotations

import math
import random

import pytest

from envs.pixels.cave_expert import turn_to_goal
from envs.pixels.cave_world import GOALS, Layout, World
from envs.pixels.scene import directions


def world(seed: int) -> World:
    rng = random.Random(seed)
    return World(Layout.draw(rng), "reach_water", rng)


def test_turning_by_the_exact_angle_needs_no_further_turn() -> None:
    found = world(1)
    x, y, yaw = found.start
    turn = turn_to_goal(found, x, y, yaw)
    assert -180 <= turn <= 180
    assert turn_to_goal(found, x, y, yaw + turn) == pytest.approx(0.0)


def test_from_in_front_of_the_water_one_goes_straight_in() -> None:
    found = world(2)
    north_of_water = [
        (x, y)
        for (x, y), steps in found.to_goal.items()
        if steps == 1 and found.to_goal.get((x, y + 1)) == 0 and found.to_goal.get((x, y + 2)) == 0
    ]
    x, y = north_of_water[0]
    ahead, _ = directions(turn_to_goal(found, x + 0.5, y + 0.5, 0.0))
    assert found.to_goal[int(x + 0.5 + ahead[0]), int(y + 0.5 + ahead[1])] == 0


def test_with_a_grid_the_turn_is_a_multiple_of_it_and_leads_on() -> None:
    """A heading that is only rounded leads into a corner and stays there: 2 of 50 episodes ended so."""
    for seed in range(30):
        found = world(seed)
        x, y, yaw = found.start
        steps = 0
        while found.to_goal[int(x), int(y)]:
            turn = turn_to_goal(found, x, y, yaw, grid_deg=15.0)
            assert math.remainder(turn, 15.0) == 0
            yaw += turn
            ahead, _ = directions(yaw)
            x, y = found.walk(x, y, 0.4 * ahead[0], 0.4 * ahead[1])
            steps += 1
            assert steps < 60


def test_every_task_has_a_goal_that_the_expert_can_plan_for() -> None:
    for task in GOALS:
        rng = random.Random(0)
        found = World(Layout.draw(rng), task, rng)
        assert 0 in found.to_goal.values()
