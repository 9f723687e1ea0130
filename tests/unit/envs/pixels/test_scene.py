"""What a ray meets where it enters a cell."""

from __future__ import annotations

import numpy as np
import pytest

from envs.pixels.scene import FENCE_BIT, LINTEL_BIT, TILE_BITS, Scene, directions
from envs.pixels.textures import CAVE_WALL, ROCK
from tests.unit.envs.pixels.scenes import room

EASTWARD, WESTWARD = 0, 1


def face(scene: Scene, direction: int, x: int, y: int) -> int:
    return int(scene.faces.reshape(4, scene.size, scene.size)[direction, y, x])


def test_north_is_up_and_yaw_turns_clockwise() -> None:
    assert directions(0.0) == ((0.0, -1.0), (1.0, 0.0))
    assert np.allclose(directions(90.0), ((1, 0), (0, 1)))


def test_a_scene_that_a_ray_could_leave_is_refused() -> None:
    with pytest.raises(ValueError, match="outermost cells of a scene must be walls"):
        room(walls={(0, 4): 0})


def test_rock_looks_dark_from_under_a_roof_only() -> None:
    scene = room(walls={(5, 5): ROCK}, roofed=((4, 5),))
    assert face(scene, EASTWARD, 5, 5) & TILE_BITS == CAVE_WALL
    assert face(scene, WESTWARD, 5, 5) & TILE_BITS == ROCK


def test_a_fence_and_a_roof_begin_once_along_a_ray() -> None:
    scene = room(fences=((4, 5), (5, 5)), roofed=((4, 6), (5, 6)))
    assert [face(scene, EASTWARD, x, 5) & FENCE_BIT for x in (4, 5, 6)] == [FENCE_BIT, 0, 0]
    assert [face(scene, WESTWARD, x, 6) & LINTEL_BIT for x in (3, 4, 5)] == [0, 0, LINTEL_BIT]
