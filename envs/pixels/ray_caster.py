"""The picture that a camera takes in a world of square cells: one ray per column, followed from cell edge to cell edge.

A picture is first an array of texel numbers (`textures.COLOURS`), painted from back to front: sky and floor, walls,
what is over a roofed cell, then fences and animals. Distances are in cells and measured along the view (not along the
ray), so that a flat wall looks flat. Looking up or down shifts the horizon.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from envs.pixels import textures
from envs.pixels.crossings import Crossings, Hits, cross
from envs.pixels.scene import FENCE_BIT, LINTEL_BIT, TILE_BITS, Pose, Scene, directions
from envs.pixels.textures import AREA, LEVELS, TEXELS, TEXELS_OF_A_TILE, Array, Texels, level_of, start_of

FIELD_OF_VIEW_DEG = 70.0
EYE, ROOF, WALL = 0.6, 1.0, 2.0  # heights above the ground, in cells
FENCE_HEIGHT, ANIMAL_SIZE = 0.55, 0.55
NEAREST = 0.3  # an animal nearer than this is not drawn: the camera stands in it

_SHIFT = TEXELS.bit_length() - 1
_ALL = slice(None)
_AT_HORIZON_PX = 1e-3  # floor and ceiling at the horizon would be infinitely far away


class Rows:
    """What depends on the pitch alone: H rows, of which [:horizon] look up and the others down."""

    def __init__(self, side: int, focal_px: float, pitch_deg: float) -> None:
        middle = side / 2 - focal_px * math.tan(math.radians(pitch_deg))  # things at the height of the eye appear here
        above = middle - (np.arange(side, dtype=np.float32) + 0.5)
        self.above = above  # [H] pixels above the horizon
        self.horizon = horizon = int(np.count_nonzero(above > 0))
        shade = np.minimum(above[:horizon] / side * AREA, AREA - 1).astype(np.int32)
        self.sky = (start_of(textures.SKY) + shade)[:, None]
        self.floor_distance = EYE * focal_px / np.maximum(-above[horizon:], _AT_HORIZON_PX)
        self.floor_levels = (level_of(self.floor_distance) * AREA)[:, None]
        self.roof_distance = (ROOF - EYE) * focal_px / np.maximum(above[:horizon], _AT_HORIZON_PX)
        self.roof_starts = (start_of(textures.CEILING) + level_of(self.roof_distance) * AREA)[:, None]


@dataclass(frozen=True, slots=True)
class View:
    """A camera in a scene, whose picture has H rows and W columns."""

    scene: Scene
    pose: Pose
    focal_px: float  # a thing of one cell at distance d is focal_px / d pixels large
    columns: Array  # [W] the middle of each column, in pixels
    rows: Rows
    ahead: tuple[float, float]
    right: tuple[float, float]
    rays: Array  # [2, W]: (x, y) of each ray where it is one cell ahead

    def heights(self, rows: slice, distance: Array) -> Array:
        """[rows, W]: the height above the ground of what is seen in a pixel at this distance [W]."""
        heights: Array = EYE + self.rows.above[rows, None] * (distance / self.focal_px)
        return heights

    def rows_of(self, nearest: float, tall: float) -> slice:
        """The rows in which something can be seen that stands on the ground, `nearest` cells away or farther."""
        middle, scale = self.rows.above[0], self.focal_px / nearest
        return slice(max(int(middle - (tall - EYE) * scale), 0), max(int(middle + EYE * scale) + 2, 0))

    def ground(self, distance: Array, columns: slice) -> tuple[Texels, Texels]:
        """[rows, columns] each: the cell in which a level plane at this distance [rows] is met, and the texel in it."""
        rays = self.rays[:, columns] * TEXELS
        x = (self.pose.x * TEXELS + distance[:, None] * rays[0]).astype(np.int32)
        y = (self.pose.y * TEXELS + distance[:, None] * rays[1]).astype(np.int32)
        cell = (y >> _SHIFT) * self.scene.size + (x >> _SHIFT)
        within = ((y & (TEXELS - 1)) << _SHIFT) + (x & (TEXELS - 1))
        return cell, within

    def picture(self) -> NDArray[np.uint8]:
        """[H, W, 3]."""
        crossings = cross(self.scene, self.pose, self.rays)
        walls = crossings.first(TILE_BITS)
        far, seen = walls.distance, crossings.bits_before(walls.distance)
        texels = np.empty((len(self.rows.above), len(self.columns)), np.int32)
        upper, lower = texels[: self.rows.horizon], texels[self.rows.horizon :]
        upper[:] = self.rows.sky
        self._paint_floor(lower)
        self._paint_walls(texels, walls)
        if self.scene.roofed[int(self.pose.y), int(self.pose.x)]:
            self._paint_ceiling(upper, _ALL, far)
        elif seen & LINTEL_BIT:
            self._paint_mouth(upper, crossings.first(LINTEL_BIT), far)
        depth = np.empty(lower.shape, np.float32)
        depth[:] = far
        if seen & FENCE_BIT:
            self._paint_fences(lower, depth, crossings, far)
        for x, y, tile in self.scene.animals:
            self._paint_animal(lower, depth, far, x - self.pose.x, y - self.pose.y, tile)
        return textures.rgb(texels)

    def _paint_floor(self, texels: Texels) -> None:
        cell, within = self.ground(self.rows.floor_distance, _ALL)
        np.add(self.scene.floor_starts.take(cell, mode="clip"), within, out=texels)
        texels += self.rows.floor_levels

    def _paint_walls(self, texels: Texels, walls: Hits) -> None:
        rows = self.rows_of(float(walls.distance.min()), WALL)
        height = self.heights(rows, walls.distance)
        starts = (walls.faces & TILE_BITS).astype(np.int32) * TEXELS_OF_A_TILE + walls.texels()
        np.copyto(texels[rows], _row(height, WALL) + starts, where=(height >= 0) & (height < WALL))

    def _paint_mouth(self, texels: Texels, lintels: Hits, far: Array) -> None:
        """A cave seen from outside: the rock above its mouth, and its ceiling."""
        columns = _span(lintels.distance < far)
        distance = lintels.distance[columns]
        height = self.heights(slice(self.rows.horizon), distance)
        starts = start_of(textures.ROCK) + lintels.texels()[columns]
        rock = (distance < far[columns]) & (height >= ROOF) & (height < WALL)
        np.copyto(texels[:, columns], _row(height, WALL) + starts, where=rock)
        self._paint_ceiling(texels, columns, far)

    def _paint_ceiling(self, texels: Texels, columns: slice, far: Array) -> None:
        distance = self.rows.roof_distance
        cell, within = self.ground(distance, columns)
        under = self.scene.roofed.ravel().take(cell, mode="clip") & (distance[:, None] < far[columns])
        np.copyto(texels[:, columns], within + self.rows.roof_starts, where=under)

    def _paint_fences(self, texels: Texels, depth: Array, crossings: Crossings, far: Array) -> None:
        """Up to two along each ray."""
        near = crossings.first(FENCE_BIT)
        for hits in (near, crossings.first(FENCE_BIT, beyond=near.distance)):
            seen = hits.distance < far
            if not seen.any():
                return
            columns = _span(seen)
            starts = start_of(textures.FENCE) + hits.texels()[columns]
            self._paint_upright(texels, depth, columns, hits.distance[columns], starts, FENCE_HEIGHT)

    def _paint_animal(self, texels: Texels, depth: Array, far: Array, east: float, south: float, tile: int) -> None:
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
        distances = np.full(len(column), distance, np.float32)
        self._paint_upright(texels, depth, columns, distances, start_of(tile, level) + column, ANIMAL_SIZE)

    def _paint_upright(
        self, texels: Texels, depth: Array, columns: slice, distance: Array, starts: Texels, tall: float
    ) -> None:
        """Something with holes that stands on the ground, where it is nearer than what was painted before."""
        rows = self.rows_of(float(distance.min()), tall)
        rows = slice(max(rows.start, self.rows.horizon), max(rows.stop, self.rows.horizon))
        part = slice(rows.start - self.rows.horizon, rows.stop - self.rows.horizon)
        height = self.heights(rows, distance)
        inside = (height >= 0) & (height < tall) & (distance < depth[part, columns])
        found = np.where(inside, _row(height, tall) + starts, 0)
        inside &= textures.OPAQUE.take(found)
        np.copyto(texels[part, columns], found, where=inside)
        np.copyto(depth[part, columns], distance, where=inside)


class RayCaster:
    """Takes square pictures of `side` pixels. Holds nothing of a scene."""

    def __init__(self, side: int) -> None:
        widest = math.tan(math.radians(FIELD_OF_VIEW_DEG / 2))
        self.focal_px = side / 2 / widest
        self._side = side
        self._middles = np.arange(side, dtype=np.float32) + 0.5
        self._slopes = (self._middles / side * 2 - 1) * widest  # [W] cells to the right per cell ahead

    def picture(self, scene: Scene, pose: Pose) -> NDArray[np.uint8]:
        """[side, side, 3]. The pose must be inside the outermost cells."""
        return self.view(scene, pose).picture()

    def distances(self, scene: Scene, pose: Pose) -> Array:
        """[side]: how far the wall in each column is."""
        return cross(scene, pose, self.view(scene, pose).rays).first(TILE_BITS).distance

    def view(self, scene: Scene, pose: Pose) -> View:
        ahead, right = directions(pose.yaw_deg)
        rays = np.array([ahead], np.float32).T + np.array([right], np.float32).T * self._slopes
        rays[np.abs(rays) < 1e-6] = 1e-6  # parallel to the lines of an axis: they are crossed far outside of the map
        rows = _rows_at(self._side, self.focal_px, pose.pitch_deg)
        return View(scene, pose, self.focal_px, self._middles, rows, ahead, right, rays)


@lru_cache(maxsize=256)
def _rows_at(side: int, focal_px: float, pitch_deg: float) -> Rows:
    """Players look straight ahead most of the time."""
    return Rows(side, focal_px, pitch_deg)


@lru_cache(maxsize=8)
def ray_caster(side: int) -> RayCaster:
    """The one caster of this size: any number of worlds share it."""
    return RayCaster(side)


def _span(seen: NDArray[np.bool_]) -> slice:
    """From the first to the last column of those that are seen."""
    places = np.flatnonzero(seen)
    return slice(int(places[0]), int(places[-1]) + 1)


def _row(height: Array, tall: float) -> Texels:
    """The row of texels of a tile that is `tall` cells high, as an offset; meaningless outside of it."""
    rows: Texels = (height * (TEXELS / tall)).astype(np.int32) << _SHIFT
    return rows
