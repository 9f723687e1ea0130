"""Rays through the cells of a scene, followed from cell edge to cell edge. Distances are in cells."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from envs.pixels.scene import Pose, Scene
from envs.pixels.textures import AREA, LEVELS, TEXELS, Array, Texels, level_of

NOWHERE = np.float32(1e6)  # cells; farther than anything in a scene
SIDE_LEVELS = 1  # faces to the east or west are this much fainter, so that corners are seen

_AXES = np.array([[0], [1]], np.int32)


@dataclass(frozen=True, slots=True)
class Crossings:
    """Where each of W rays crosses the next K lines of the grid: first those that run north, then those that run
    east."""

    distance: Array  # [W, 2 * K]
    along: Array  # [W, 2 * K] the coordinate along the line
    faces: NDArray[np.uint8]  # [W, 2 * K]

    def bits_before(self, distance: Array) -> int:
        """All bits of the faces that are nearer than the distance [W]."""
        return int(np.bitwise_or.reduce(self.faces, axis=None, where=self.distance < distance[:, None]))

    def first(self, bits: int, beyond: Array | None = None) -> Hits:
        """The nearest crossing of each ray that has any of the bits, beyond the distance [W]."""
        met = (self.faces & bits) != 0
        if beyond is not None:
            met &= self.distance > beyond[:, None]
        width, count = met.shape
        reached = np.where(met, self.distance, NOWHERE)
        place = reached.argmin(1)
        flat = place + np.arange(0, width * count, count)
        distance = reached.ravel().take(flat)
        return Hits(distance, self.along.ravel().take(flat), self.faces.ravel().take(flat), place < count // 2)


@dataclass(frozen=True, slots=True)
class Hits:
    """What each of W rays met first of a kind; the distance is NOWHERE where there was nothing."""

    distance: Array  # [W]
    along: Array  # [W] along the face, in cells
    faces: NDArray[np.uint8]  # [W]
    faces_east_or_west: NDArray[np.bool_]  # [W]

    def texels(self) -> Texels:
        """[W]: the column of texels that was met, at the level of its distance, counted from the start of a tile."""
        column = (self.along * TEXELS).astype(np.int32) & (TEXELS - 1)
        level = np.minimum(level_of(self.distance) + self.faces_east_or_west * SIDE_LEVELS, LEVELS - 1)
        texels: Texels = level * AREA + column
        return texels


def cross(scene: Scene, pose: Pose, rays: Array) -> Crossings:
    """The steps of rays [2, W], given by (x, y) of each where it is one cell ahead.

    All steps of a DDA (Amanatides and Woo, 1987) at once: the k-th crossing of an axis has a closed form. Beyond the
    outermost cells the faces have no meaning; such a crossing is farther away than the wall there.
    """
    size, column, row = scene.size, int(pose.x), int(pose.y)
    origin, cell = np.array([[pose.x], [pose.y]], np.float32), np.array([[column], [row]], np.float32)
    rays = rays.T[:, :, None]  # [W, 2, 1]
    backward = rays < 0
    steps = np.arange(1, max(column, row, size - 1 - column, size - 1 - row) + 1, dtype=np.float32)
    entered = cell + np.sign(rays) * steps  # [W, 2, K]: number of the cell along its own axis
    distance = (entered + backward - origin) / rays
    along = origin[::-1] + distance * rays[:, ::-1]
    index = entered.astype(np.int32) * scene.strides + along.astype(np.int32) * scene.strides[::-1]
    index += (_AXES * 2 + backward) * np.int32(size**2)  # in the order of Scene.faces
    faces = scene.faces.take(index, mode="clip")
    flat = (len(rays), -1)
    return Crossings(distance.reshape(flat), along.reshape(flat), faces.reshape(flat))
