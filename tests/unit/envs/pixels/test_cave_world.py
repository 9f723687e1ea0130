"""Maps by the thousand keep what their generator promises, and a player walks on them as on paper."""

from __future__ import annotations

import itertools
import random

import pytest

from envs.pixels.cave_world import (
    BOX,
    FARTHEST_START,
    GOALS,
    NEAREST_START,
    RADIUS,
    SIZE,
    Layout,
    Task,
    World,
)
from envs.pixels.textures import CAVE_FLOOR, GRASS, GRAVEL, PATH, STRAW, TREE, WATER

TASKS: list[Task] = list(GOALS)


def world(seed: int, task: Task = "find_cave") -> World:
    rng = random.Random(seed)
    return World(Layout.draw(rng), task, rng)


def cells(found: World, tile: int) -> list[tuple[int, int]]:
    places = itertools.product(range(SIZE), range(SIZE))
    return [(x, y) for x, y in places if found.scene.floor[y, x] == tile and not found.blocked(x + 0.5, y + 0.5)]


@pytest.mark.parametrize("task", TASKS)
def test_a_way_of_the_promised_length_leads_from_every_start_to_the_goal(task: Task) -> None:
    for seed in range(300):
        found = world(seed, task)
        x, y, _ = found.start
        assert NEAREST_START <= found.to_goal[int(x), int(y)] <= FARTHEST_START
        assert not found.blocked(x, y)
        assert not found.at_goal(task, x, y)


def test_from_every_start_one_can_walk_to_all_three_places() -> None:
    for seed in range(100):
        found = world(seed)
        x, y, _ = found.start
        reached = found.distances([(int(x), int(y))])
        for tile in (CAVE_FLOOR, GRAVEL, WATER, STRAW, PATH):
            assert reached.keys() >= set(cells(found, tile)) != set()


def test_the_cave_is_entered_through_its_mouth_and_the_pen_through_its_gate_only() -> None:
    for seed in range(100):
        found = world(seed)
        for inside, entrance, most in ((CAVE_FLOOR, GRAVEL, (BOX - 2) ** 2), (STRAW, PATH, (BOX - 2) ** 2)):
            doors = cells(found, entrance)
            closed = found.distances([*cells(found, inside), *doors])
            around = {cell for cell, steps in closed.items() if steps == 1}
            assert around
            assert all(any(abs(x - a) + abs(y - b) == 1 for a, b in doors) for x, y in around)
            assert len(cells(found, inside)) <= most


def test_no_tree_stands_beside_anything_but_grass() -> None:
    for seed in range(50):
        found = world(seed)
        trees = [(x, y) for x, y in itertools.product(range(SIZE), range(SIZE)) if found.scene.walls[y, x] == TREE]
        assert len(trees) >= 5
        for x, y in trees:
            for east, south in itertools.product((-1, 0, 1), (-1, 0, 1)):
                if east or south:
                    assert found.scene.floor[y + south, x + east] == GRASS
                    assert not found.blocked(x + east + 0.5, y + south + 0.5)


def test_worlds_differ_and_the_same_numbers_give_the_same_world() -> None:
    def drawn(seed: int) -> tuple[bytes, bytes, object, object]:
        found = world(seed)
        return found.scene.walls.tobytes(), found.scene.floor.tobytes(), found.scene.animals, found.start

    worlds = [drawn(seed) for seed in range(50)]
    assert worlds == [drawn(seed) for seed in range(50)]
    assert len(set(worlds)) == 50


def beside_a_wall() -> tuple[World, float, float]:
    """A point in the north-western corner of the map, which has walls to the north and the west."""
    for seed in itertools.count():
        found = world(seed)
        if all(
            found.scene.floor[y, x] == GRASS and not found.blocked(x + 0.5, y + 0.5) for x in (1, 2) for y in (1, 2)
        ):
            return found, 1.5, 1.5
    raise AssertionError


def test_a_wall_stops_what_goes_into_it_and_lets_one_slide_along() -> None:
    found, x, y = beside_a_wall()
    # 0.5 to the west is stopped 0.2 before the wall at x = 1, the player's half width; 0.5 is walked in parts of 0.1.
    west, _ = found.walk(x, y, -0.5, 0.0)
    assert west == pytest.approx(1 + RADIUS, abs=0.1 + 1e-9)
    assert west >= 1 + RADIUS
    slid = found.walk(x, y, -0.5, 0.4)
    assert slid == pytest.approx((west, y + 0.4))
    assert found.walk(*found.walk(x, y, -0.5, -0.5), -0.5, -0.5) == pytest.approx(found.walk(x, y, -0.5, -0.5))


def test_nothing_walks_through_a_fence_or_out_of_the_map() -> None:
    rng = random.Random(0)
    for seed in range(20):
        found = world(seed)
        x, y, _ = found.start
        before = (x, y)
        for _ in range(300):
            x, y = found.walk(x, y, rng.uniform(-0.5, 0.5), rng.uniform(-0.5, 0.5))
            assert not found.blocked(x, y)
            was, now = before, (x, y)
            if found.ground(*now) == STRAW:
                assert found.ground(*was) in (STRAW, PATH)
            before = now


def test_one_is_at_the_water_a_quarter_of_a_cell_before_it() -> None:
    found = world(0, "reach_water")
    x, y = next((x, y) for x, y in cells(found, WATER) if (x - 1, y) in cells(found, GRASS))
    assert found.at_goal("reach_water", x - 0.24, y + 0.5)
    assert not found.at_goal("reach_water", x - 0.26, y + 0.5)
    assert not found.at_goal("find_cave", x + 0.5, y + 0.5)


def test_standing_in_the_mouth_or_in_the_gate_is_not_inside() -> None:
    found = world(0)
    for task, entrance in (("find_cave", GRAVEL), ("enter_pen", PATH)):
        for x, y in cells(found, entrance):
            assert not found.at_goal(task, x + 0.5, y + 0.5)
