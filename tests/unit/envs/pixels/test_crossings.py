"""Rays against a walk in tiny steps."""

from __future__ import annotations

import random

import numpy as np

from envs.pixels.crossings import NOWHERE, cross
from envs.pixels.scene import FENCE_BIT, TILE_BITS, Pose, Scene
from envs.pixels.textures import ROCK
from tests.unit.envs.pixels.scenes import room

STEP = 1 / 512


def walked(scene: Scene, pose: Pose, ray: np.ndarray) -> float:
    """How far the first wall is, in units of the ray."""
    steps = 1
    while not scene.walls[int(pose.y + steps * STEP * ray[1]), int(pose.x + steps * STEP * ray[0])]:
        steps += 1
    return steps * STEP


def test_rays_end_where_a_walk_in_tiny_steps_meets_the_wall() -> None:
    rng = random.Random(0)
    for _ in range(40):
        cells = {(rng.randrange(1, 10), rng.randrange(1, 10)): ROCK for _ in range(12)}
        cells.pop((5, 5), None)
        scene = room(walls=cells)
        pose = Pose(5 + rng.random(), 5 + rng.random())
        angles = [rng.uniform(0, 6.283) for _ in range(8)]
        rays = np.array([np.sin(angles), -np.cos(angles)])
        found = cross(scene, pose, rays).first(TILE_BITS).distance
        expected = [walked(scene, pose, ray) for ray in rays.T]
        assert np.abs(found - expected).max() < 2 * STEP


def test_a_hit_knows_its_place_along_the_wall_and_which_way_the_wall_faces() -> None:
    # From (5.25, 5.5): east to the face x = 10, 4.75 cells away, at y = 5.5; north to y = 1, 4.5 away, at x = 5.25.
    hits = cross(room(), Pose(5.25, 5.5), np.array([[1.0, 1e-6], [1e-6, -1.0]])).first(TILE_BITS)
    assert np.allclose(hits.distance, [4.75, 4.5])
    assert np.allclose(hits.along, [5.5, 5.25])
    assert hits.faces_east_or_west.tolist() == [True, False]


def test_the_second_fence_lies_beyond_the_first_and_nothing_beyond_the_last() -> None:
    crossings = cross(room(fences=((5, 4), (5, 2))), Pose(5.5, 5.5), np.array([[1e-6], [-1.0]]))
    first = crossings.first(FENCE_BIT)
    second = crossings.first(FENCE_BIT, beyond=first.distance)
    third = crossings.first(FENCE_BIT, beyond=second.distance)
    assert np.allclose([first.distance, second.distance], [[0.5], [2.5]])
    assert third.distance.tolist() == [NOWHERE]


def test_bits_are_seen_before_a_distance_and_not_behind_it() -> None:
    crossings = cross(room(fences=((5, 3),)), Pose(5.5, 5.5), np.array([[1e-6], [-1.0]]))
    assert crossings.bits_before(np.array([1.6])) & FENCE_BIT
    assert not crossings.bits_before(np.array([1.4])) & FENCE_BIT
