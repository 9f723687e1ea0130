"""Small scenes for tests of the picture."""

from __future__ import annotations

import numpy as np

from envs.pixels.scene import Scene
from envs.pixels.textures import CAVE_WALL, GRASS

Animals = tuple[tuple[float, float, int], ...]


def room(
    walls: dict[tuple[int, int], int] | None = None,
    fences: tuple[tuple[int, int], ...] = (),
    roofed: tuple[tuple[int, int], ...] = (),
    animals: Animals = (),
    size: int = 11,
) -> Scene:
    """A lawn of 9 x 9 cells between dark walls; what stands on it is given by its cells (x, y)."""
    wall = np.zeros((size, size), np.uint8)
    wall[[0, -1]] = wall[:, [0, -1]] = CAVE_WALL
    fence, roof = np.zeros((size, size), bool), np.zeros((size, size), bool)
    for (x, y), tile in (walls or {}).items():
        wall[y, x] = tile
    for x, y in fences:
        fence[y, x] = True
    for x, y in roofed:
        roof[y, x] = True
    return Scene(np.full((size, size), GRASS, np.uint8), wall, fence, roof, animals)
