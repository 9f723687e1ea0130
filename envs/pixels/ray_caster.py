"""The picture that a camera takes in a world of square cells: one ray per column, followed from cell edge to cell edge.

A picture is first an array of texel numbers (`textures.COLOURS`), painted from back to front: sky and floor, walls,
what is over a roofed cell, then fences and animals. Distances are in cells and measured along the view (not along the
ray), so that a flat wall looks flat. Looking up or down shifts the horizon.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.pixels import textures
from envs.pixels.textures import AREA, LEVELS, TEXELS, level_of, start_of

FIELD_OF_VIEW_DEG = 70.0
EYE, ROOF, WALL = 0.6, 1.0, 2.0  # heights above the ground, in cells
FENCE_HEIGHT, ANIMAL_SIZE = 0.55, 0.55
SIDE_LEVELS = 1  # walls that face east or west are this much fainter, so that corners are seen
NEAREST = 0.3  # an animal nearer than this is not drawn: the camera stands in it

_TILE, _FENCE, _LINTEL = 31, 32, 64  # bits of a face: the tile of its wall, 0 for none; a fence; a roof that begins
_PER_TILE = LEVELS * AREA
_SHIFT = TEXELS.bit_length() - 1
_ALL = slice(None)
_AXES = np.array([[0], [1]])
_NOWHERE = 1e6  # cells; farther than anything in a scene
_BELOW_HORIZON = 1e-3  # pixels; the floor at the horizon is infinitely far away

Array = NDArray[np.float64]
Pixels = NDArray[np.float32]
Texels = NDArray[np.signedinteger[Any]]  # numbers of texels in COLOURS


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
        self.floor_starts = floor.astype(np.int64).ravel() * _PER_TILE
        self.strides = np.array([[1], [self.size]])  # from a cell to its eastern and southern neighbour
        self.faces = np.stack([self._faces(axis, step) for axis in (1, 0) for step in (-1, 1)]).ravel()

    def _faces(self, axis: int, step: int) -> NDArray[np.uint8]:
        """[N, N]: what a ray meets that enters each cell from its neighbour, `step` cells away along `axis`."""
        roofed_before, fence_before = np.roll(self.roofed, -step, axis), np.roll(self.fences, -step, axis)
        tile = np.where((self.walls > 0) & roofed_before, textures.CAVE_WALL, self.walls)
        fence, lintel = self.fences & ~fence_before, self.roofed & ~roofed_before
        found: NDArray[np.uint8] = (tile + fence * _FENCE + lintel * _LINTEL).astype(np.uint8)
        return found


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
        place = np.where(met, self.distance, _NOWHERE).argmin(1)
        flat = place + np.arange(0, width * count, count)
        distance = np.where(met.ravel().take(flat), self.distance.ravel().take(flat), _NOWHERE)
        return Hits(distance, self.along.ravel().take(flat), self.faces.ravel().take(flat), place < count // 2)


@dataclass(frozen=True, slots=True)
class Hits:
    """What each of W rays met first of a kind; the distance is _NOWHERE where there was nothing."""

    distance: Array  # [W]
    along: Array  # [W] along the face, in cells
    faces: NDArray[np.uint8]  # [W]
    faces_east_or_west: NDArray[np.bool_]  # [W]

    def texels(self) -> Texels:
        """[W]: the column of texels that was met, at the level of its distance, counted from the start of a tile."""
        column = ((self.along % 1.0) * TEXELS).astype(np.int32)
        level = np.minimum(level_of(self.distance) + self.faces_east_or_west, LEVELS - 1)
        texels: Texels = level * AREA + column
        return texels


@dataclass(frozen=True, slots=True)
class View:
    """A camera in a scene. H rows and W columns; rows [:horizon] look up, the others down."""

    scene: Scene
    pose: Pose
    focal_px: float  # a thing of one cell at distance d is focal_px / d pixels large
    columns: Array  # [W] the middle of each column, in pixels
    above: Array  # [H] pixels above the horizon
    horizon: int
    ahead: tuple[float, float]
    right: tuple[float, float]
    rays: Array  # [2, W]: (x, y) of each ray where it is one cell ahead

    def crossings(self) -> Crossings:
        """All steps of a DDA (Amanatides and Woo, 1987) at once: the k-th crossing of an axis has a closed form. Beyond
        the outermost cells the faces have no meaning; such a crossing is farther away than the wall there."""
        size, column, row = self.scene.size, int(self.pose.x), int(self.pose.y)
        origin, cell = np.array([[self.pose.x], [self.pose.y]]), np.array([[column], [row]])
        rays = self.rays.T[:, :, None]  # [W, 2, 1]
        backward = rays < 0
        steps = np.arange(1, max(column, row, size - 1 - column, size - 1 - row) + 1)
        entered = cell + np.where(backward, -steps, steps)  # [W, 2, K]: number of the cell along its own axis
        distance = (entered + backward - origin) / rays
        along = origin[::-1] + distance * rays[:, ::-1]
        index = entered * self.scene.strides + along.astype(np.int64) * self.scene.strides[::-1]
        index += (_AXES * 2 + backward) * size**2  # in the order of Scene.faces
        faces = self.scene.faces.take(index, mode="clip")
        flat = (len(rays), -1)
        return Crossings(distance.reshape(flat), along.reshape(flat), faces.reshape(flat))

    def heights(self, rows: slice, distance: Array) -> Pixels:
        """[rows, W]: the height above the ground of what is seen in a pixel at this distance [W]."""
        above, per_px = self.above[rows].astype(np.float32), (distance / self.focal_px).astype(np.float32)
        heights: Pixels = np.float32(EYE) + above[:, None] * per_px
        return heights

    def ground(self, distance: Array, columns: slice) -> tuple[Texels, Texels]:
        """[rows, columns] each: the cell in which a level plane at this distance [rows] is met, and the texel in it."""
        rays, distance = (self.rays[:, columns] * TEXELS).astype(np.float32), distance.astype(np.float32)[:, None]
        x = (np.float32(self.pose.x * TEXELS) + distance * rays[0]).astype(np.int32)
        y = (np.float32(self.pose.y * TEXELS) + distance * rays[1]).astype(np.int32)
        cell = (y >> _SHIFT) * self.scene.size + (x >> _SHIFT)
        within = ((y & (TEXELS - 1)) << _SHIFT) + (x & (TEXELS - 1))
        return cell, within

    def picture(self) -> NDArray[np.uint8]:
        """[H, W, 3]."""
        crossings = self.crossings()
        walls = crossings.first(_TILE)
        texels = np.empty((len(self.above), len(self.columns)), np.int64)
        self._paint_sky(texels[: self.horizon])
        self._paint_floor(texels[self.horizon :])
        self._paint_walls(texels, walls)
        seen = crossings.bits_before(walls.distance)
        if self.scene.roofed[int(self.pose.y), int(self.pose.x)]:
            self._paint_ceiling(texels[: self.horizon], _ALL, walls.distance)
        elif seen & _LINTEL:
            self._paint_mouth(texels[: self.horizon], crossings.first(_LINTEL), walls.distance)
        depth = np.empty((len(self.above) - self.horizon, len(self.columns)), np.float32)
        depth[:] = walls.distance
        if seen & _FENCE:
            self._paint_fences(texels[self.horizon :], depth, crossings, walls.distance)
        for x, y, tile in self.scene.animals:
            self._paint_animal(texels[self.horizon :], depth, walls.distance, x - self.pose.x, y - self.pose.y, tile)
        return textures.rgb(texels)

    def _paint_sky(self, texels: Texels) -> None:
        shade = np.minimum(self.above[: self.horizon] / len(self.above) * AREA, AREA - 1).astype(np.int64)
        texels[:] = (start_of(textures.SKY) + shade)[:, None]

    def _paint_floor(self, texels: Texels) -> None:
        distance = EYE * self.focal_px / np.maximum(-self.above[self.horizon :], _BELOW_HORIZON)
        cell, within = self.ground(distance, _ALL)
        np.add(self.scene.floor_starts.take(cell, mode="clip"), within, out=texels)
        texels += (level_of(distance) * AREA)[:, None]

    def _paint_walls(self, texels: Texels, walls: Hits) -> None:
        height = self.heights(_ALL, walls.distance)
        starts = (walls.faces & _TILE).astype(np.int32) * _PER_TILE + walls.texels()
        np.copyto(texels, _row(height, WALL) + starts, where=(height >= 0) & (height < WALL))

    def _paint_mouth(self, texels: Texels, lintels: Hits, far: Array) -> None:
        """A cave seen from outside: the rock above its mouth, and its ceiling."""
        columns = _span(lintels.distance < far)
        distance = lintels.distance[columns]
        height = self.heights(slice(self.horizon), distance)
        starts = start_of(textures.ROCK) + lintels.texels()[columns]
        rock = (distance < far[columns]) & (height >= ROOF) & (height < WALL)
        np.copyto(texels[:, columns], _row(height, WALL) + starts, where=rock)
        self._paint_ceiling(texels, columns, far)

    def _paint_ceiling(self, texels: Texels, columns: slice, far: Array) -> None:
        distance = (ROOF - EYE) * self.focal_px / self.above[: self.horizon]
        cell, within = self.ground(distance, columns)
        under = self.scene.roofed.ravel().take(cell, mode="clip") & (distance[:, None] < far[columns])
        within += (start_of(textures.CEILING) + level_of(distance) * AREA)[:, None]
        np.copyto(texels[:, columns], within, where=under)

    def _paint_fences(self, texels: Texels, depth: Pixels, crossings: Crossings, far: Array) -> None:
        """Up to two along each ray."""
        near = crossings.first(_FENCE)
        for hits in (near, crossings.first(_FENCE, beyond=near.distance)):
            columns = _span(hits.distance < far)
            starts = start_of(textures.FENCE) + hits.texels()[columns]
            self._paint_upright(texels, depth, columns, hits.distance[columns], starts, FENCE_HEIGHT)

    def _paint_animal(self, texels: Texels, depth: Pixels, far: Array, east: float, south: float, tile: int) -> None:
        """A flat picture that always faces the camera."""
        distance = east * self.ahead[0] + south * self.ahead[1]
        if distance < NEAREST:
            return
        scale = self.focal_px / distance
        width = ANIMAL_SIZE * scale
        left = len(self.columns) / 2 + (east * self.right[0] + south * self.right[1]) * scale - width / 2
        columns = slice(max(math.ceil(left - 0.5), 0), max(math.ceil(left + width - 0.5), 0))
        if not (distance < far[columns]).any():  # hidden, or outside of the picture
            return
        column = np.minimum((self.columns[columns] - left) / width * TEXELS, TEXELS - 1).astype(np.int32)
        level = min(int(distance / textures.CELLS_PER_LEVEL), LEVELS - 1)
        distances = np.full(len(column), distance)
        self._paint_upright(texels, depth, columns, distances, start_of(tile, level) + column, ANIMAL_SIZE)

    def _paint_upright(
        self, texels: Texels, depth: Pixels, columns: slice, distance: Array, starts: Texels, tall: float
    ) -> None:
        """Something with holes that stands on the ground, where it is nearer than what was painted before."""
        height = self.heights(slice(self.horizon, None), distance)
        inside = (height >= 0) & (height < tall) & (distance.astype(np.float32) < depth[:, columns])
        found = np.where(inside, _row(height, tall) + starts, 0)
        inside &= textures.OPAQUE.take(found)
        np.copyto(texels[:, columns], found, where=inside)
        np.copyto(depth[:, columns], distance, where=inside, casting="same_kind")


class RayCaster:
    """Takes square pictures of `side` pixels. Holds nothing of a scene."""

    def __init__(self, side: int) -> None:
        widest = math.tan(math.radians(FIELD_OF_VIEW_DEG / 2))
        self.focal_px = side / 2 / widest
        self._side = side
        self._middles = np.arange(side) + 0.5
        self._slopes = (self._middles / side * 2 - 1) * widest  # [W] cells to the right per cell ahead

    def picture(self, scene: Scene, pose: Pose) -> NDArray[np.uint8]:
        """[side, side, 3]. The pose must be inside the outermost cells."""
        return self.view(scene, pose).picture()

    def distances(self, scene: Scene, pose: Pose) -> Array:
        """[side]: how far the wall in each column is."""
        return self.view(scene, pose).crossings().first(_TILE).distance

    def view(self, scene: Scene, pose: Pose) -> View:
        ahead, right = directions(pose.yaw_deg)
        rays = np.array(ahead)[:, None] + np.array(right)[:, None] * self._slopes
        rays[np.abs(rays) < 1e-9] = 1e-9  # parallel to the lines of an axis: they are crossed far outside of the map
        above = self._side / 2 - self.focal_px * math.tan(math.radians(pose.pitch_deg)) - self._middles
        horizon = int(np.count_nonzero(above > 0))
        return View(scene, pose, self.focal_px, self._middles, above, horizon, ahead, right, rays)


@lru_cache(maxsize=8)
def ray_caster(side: int) -> RayCaster:
    """The one caster of this size: any number of worlds share it."""
    return RayCaster(side)


def directions(yaw_deg: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """Unit vectors (x, y) ahead and to the right.

    >>> [round(part) for vector in directions(90.0) for part in vector]
    [1, 0, 0, 1]
    """
    sine, cosine = math.sin(math.radians(yaw_deg)), math.cos(math.radians(yaw_deg))
    return (sine, -cosine), (cosine, sine)


def _span(seen: NDArray[np.bool_]) -> slice:
    """From the first to the last column of those that are seen."""
    places = np.flatnonzero(seen)
    return slice(int(places[0]), int(places[-1]) + 1) if len(places) else slice(0)


def _row(height: Pixels, tall: float) -> Texels:
    """The row of texels of a tile that is `tall` cells high, as an offset; meaningless outside of it."""
    rows: Texels = (height * np.float32(TEXELS / tall)).astype(np.int32) << _SHIFT
    return rows
