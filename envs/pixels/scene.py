"""What a camera looks at: a map of square cells, and what a ray meets where it enters each of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from envs.pixels.textures import CAVE_WALL, TEXELS_OF_A_TILE

# What the bits of a face mean: the tile of its wall, 0 for none; a fence; a roof that begins.
TILE_BITS, FENCE_BIT, LINTEL_BIT = 31, 32, 64


@dataclass(frozen=True, slots=True)
class Pose:
    """Where the camera is, in cells (x to the east, y to the south), and where it looks: yaw 0 is north and 90 east,
    pitch is positive downwards."""

    x: float
    y: float
    yaw_deg: float = 0.0
    pitch_deg: float = 0.0


class Scene:
    """What can be seen: [N, N] maps, indexed [y, x], all of whose outermost cells are walls.

    `floor`: tile of the ground. `walls`: tile of the wall that fills the cell, 0 for none. `fences`, `roofed`: bool.
    `animals`: (x, y, tile).
    """

    def __init__(
        self,
        floor: NDArray[np.uint8],
        walls: NDArray[np.uint8],
        fences: NDArray[np.bool_],
        roofed: NDArray[np.bool_],
        animals: tuple[tuple[float, float, int], ...] = (),
    ) -> None:
        edge = np.ones_like(fences)
        edge[1:-1, 1:-1] = False
        if not walls[edge].all():
            raise ValueError("all outermost cells of a scene must be walls: every ray has to end")
        self.size = len(walls)
        self.floor, self.walls, self.fences, self.roofed, self.animals = floor, walls, fences, roofed, animals
        self.floor_starts = floor.astype(np.int32).ravel() * TEXELS_OF_A_TILE
        self.strides = np.array([[1], [self.size]], np.int32)  # from a cell to its eastern and southern neighbour
        self.faces = np.stack([self._faces(axis, step) for axis in (1, 0) for step in (-1, 1)]).ravel()

    def _faces(self, axis: int, step: int) -> NDArray[np.uint8]:
        """[N, N]: what a ray meets that enters each cell from its neighbour, `step` cells away along `axis`."""
        roofed_before, fence_before = np.roll(self.roofed, -step, axis), np.roll(self.fences, -step, axis)
        tile = np.where((self.walls > 0) & roofed_before, CAVE_WALL, self.walls)
        fence, lintel = self.fences & ~fence_before, self.roofed & ~roofed_before
        found: NDArray[np.uint8] = (tile + fence * FENCE_BIT + lintel * LINTEL_BIT).astype(np.uint8)
        return found


def directions(yaw_deg: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """Unit vectors (x, y) ahead and to the right.

    >>> [round(part) for vector in directions(90.0) for part in vector]
    [1, 0, 0, 1]
    """
    sine, cosine = math.sin(math.radians(yaw_deg)), math.cos(math.radians(yaw_deg))
    return (sine, -cosine), (cosine, sine)
