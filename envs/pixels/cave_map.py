"""The map from above, for people: what a player never sees."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from envs.pixels.scene import Pose, Scene, directions
from envs.pixels.textures import AREA, FENCE, OPAQUE, TEXELS, rgb, start_of

PLAYER = (226, 32, 32)
PLAYER_LENGTH, PLAYER_ANGLE_DEG = 0.9, 30.0  # of the arrow head, in cells, and half of the angle at its tip
WALL_ROWS = np.arange(TEXELS) % 6 + 8  # of a wall one sees leaves and bare rock from above: the rows below its top
ROOF_SHADE = 0.75  # a roofed cell is shown darker than its floor


def map_picture(scene: Scene, pose: Pose) -> NDArray[np.uint8]:
    """[16 * N, 16 * N, 3], north at the top: the ground, walls, fences, animals, the player."""
    picture = _of_tiles(scene)
    picture[np.kron(scene.roofed, np.ones((TEXELS, TEXELS), bool))] *= ROOF_SHADE
    _lay_over(picture, [(x, y, FENCE) for y, x in np.argwhere(scene.fences).tolist()])
    _lay_over(picture, [(x - 0.5, y - 0.5, tile) for x, y, tile in scene.animals])
    picture[_arrow(pose, len(picture))] = PLAYER
    return picture.astype(np.uint8)


def _of_tiles(scene: Scene) -> NDArray[np.float64]:
    """[16 * N, 16 * N, 3]."""
    columns, rows = np.arange(TEXELS), np.arange(TEXELS)[::-1]
    ground, wall = (row[:, None] * TEXELS + columns for row in (rows, WALL_ROWS))
    is_wall = scene.walls > 0
    starts = np.where(is_wall, scene.walls, scene.floor).astype(np.int64) * start_of(1)
    texels = starts[:, None, :, None] + np.where(is_wall[:, None, :, None], wall[None, :, None], ground[None, :, None])
    return rgb(texels.reshape(scene.size * TEXELS, -1)).astype(np.float64)


def _lay_over(picture: NDArray[np.float64], things: list[tuple[float, float, int]]) -> None:
    """Draws tiles with holes; (x, y) in cells is the north-west corner of each."""
    for x, y, tile in things:
        texels = start_of(tile) + np.arange(AREA).reshape(TEXELS, TEXELS)[::-1]
        top, left = round(y * TEXELS), round(x * TEXELS)
        part = picture[top : top + TEXELS, left : left + TEXELS]
        part[OPAQUE[texels]] = rgb(texels)[OPAQUE[texels]]


def _arrow(pose: Pose, pixels: int) -> NDArray[np.bool_]:
    """[pixels, pixels]: an arrow head around the player's place that points where the player looks."""
    ahead, _ = directions(pose.yaw_deg)
    centres = (np.arange(pixels) + 0.5) / TEXELS
    east = centres[None, :] - (pose.x + ahead[0] * PLAYER_LENGTH / 2)  # from the tip
    south = centres[:, None] - (pose.y + ahead[1] * PLAYER_LENGTH / 2)
    behind = -(east * ahead[0] + south * ahead[1])
    inside = behind >= np.hypot(east, south) * math.cos(math.radians(PLAYER_ANGLE_DEG))
    return inside & (behind <= PLAYER_LENGTH)
