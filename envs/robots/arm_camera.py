"""The arm's camera: a picture of the world by casting MuJoCo's own rays, one per pixel. No OpenGL, so that a laptop, a
server without a screen and continuous integration all see the same pixels.

What never moves is cast once per process, the bowl once per place; after that a picture needs rays only where something
that moves can be.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.base import SettingError
from envs.robots.arm_world import ArmWorld, model_of

COLOURS = {"red": (214, 40, 40), "green": (52, 168, 70), "blue": (50, 90, 214), "yellow": (240, 205, 50)}
BACKGROUND = (176, 190, 204)
EYE, LOOK_AT, FIELD_OF_VIEW = (-0.14, 0.46, 0.74), (0.26, -0.03, 0.06), 47.0  # metres, metres, degrees
LIGHT = np.array([0.1, 0.45, 0.9]) / np.linalg.norm([0.1, 0.45, 0.9])  # the way towards it
AMBIENT = 0.45  # the share of its colour that a surface shows when it faces away from the light
CHECKER, DARKER = 0.1, 0.88  # edge of the table's squares in metres; brightness of every other one
FAR = 10.0
FINE = 128  # up to this side a pixel is the mean of 2 x 2 rays: smooth edges tell a small picture's policy more
STILL, BOWL, MOVING = 0, 1, 2  # the groups of the geoms in arm.xml
Vector = NDArray[np.float64]
Picture = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Canvas:
    """What has been drawn so far, by pixel: `distances` [N] in metres to what is shown, `colours` [N, 3] uint8."""

    distances: Vector
    colours: Picture

    def copy(self) -> Canvas:
        return Canvas(self.distances.copy(), self.colours.copy())


class Camera:
    """Takes pictures [side, side, 3] uint8. What it remembers only saves time: a pickle carries none of it."""

    def __init__(self, side: int) -> None:
        if not 16 <= side <= 1024:
            raise SettingError(f"side must lie in 16..1024 pixels, got {side}")
        self.side = side
        self._rays = side * 2 if side <= FINE else side  # in a row
        self._bowl: tuple[float, float] | None = None

    def picture(self, world: ArmWorld, colours: tuple[tuple[int, int, int], ...]) -> Picture:
        """What the camera sees now; `colours` of the objects, in their order."""
        if self._bowl != world.layout.bowl:
            self._bowl, self._behind = world.layout.bowl, _room(self._rays).copy()
            _draw(self._behind, world.model, world.data, BOWL, self._rays)
        canvas = self._behind.copy()
        _draw(canvas, world.model, world.data, MOVING, self._rays, colours)
        image = canvas.colours.reshape(self._rays, self._rays, 3)
        return image if self._rays == self.side else _halved(image)

    def __getstate__(self) -> dict[str, Any]:
        return {"side": self.side, "_rays": self._rays, "_bowl": None}


def _halved(image: Picture) -> Picture:
    """[side, side, 3] out of [2 side, 2 side, 3]: the mean of each 2 x 2 pixels."""
    rows = image[0::2].astype(np.uint16) + image[1::2]
    return ((rows[:, 0::2] + rows[:, 1::2] + 2) // 4).astype(np.uint8)


@lru_cache(maxsize=4)
def _room(side: int) -> Canvas:
    """Table and base in front of the background."""
    import mujoco

    model = model_of(2)
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    canvas = Canvas(np.full(side * side, FAR), np.tile(np.array(BACKGROUND, np.uint8), (side * side, 1)))
    _draw(canvas, model, data, STILL, side)
    return canvas


def _draw(
    canvas: Canvas, model: Any, data: Any, group: int, side: int, colours: tuple[tuple[int, int, int], ...] = ()
) -> None:
    """Draws the geoms of a group over what is farther away."""
    import mujoco

    pixels = _covered(model, data, group, side)
    rays = _view(side)[0][pixels]
    wanted = np.zeros(6, np.uint8)
    wanted[group] = 1
    geoms, distances, normals = np.empty(len(pixels), np.int32), np.empty(len(pixels)), np.empty(rays.size)
    eye = np.array(EYE)
    mujoco.mj_multiRay(model, data, eye, rays.ravel(), wanted, True, -1, geoms, distances, normals, len(pixels), FAR)
    seen = (geoms >= 0) & (distances < canvas.distances[pixels])
    pixels, rays, geoms, distances = pixels[seen], rays[seen], geoms[seen], distances[seen]
    normals = normals.reshape(-1, 3)[seen]
    paint = model.geom_rgba[:, :3] * 255
    for number, colour in enumerate(colours):
        paint[model.geom(f"object_{number}").id] = colour
    bright = AMBIENT + (1 - AMBIENT) * np.maximum(normals @ LIGHT, 0)
    if group == STILL:
        bright *= _squares(eye + distances[:, None] * rays, geoms == model.geom("table").id)
    canvas.distances[pixels] = distances
    canvas.colours[pixels] = (paint[geoms] * bright[:, None]).round()


def _squares(points: Vector, table: NDArray[np.bool_]) -> Vector:
    """[N] brightness of the table's chequered pattern at `points` [N, 3]; 1 elsewhere."""
    odd = np.floor(points[:, :2] / CHECKER).sum(axis=1) % 2 == 1
    return np.where(table & odd, DARKER, 1.0)


@lru_cache(maxsize=4)
def _view(side: int) -> tuple[Vector, Vector]:
    """Rays [side * side, 3] of length 1 through the pixels, row by row from the top left, and the camera's axes [3, 3]:
    right, down, forward. Right and down are scaled so that the picture's edges are at -1 and 1."""
    forward = np.subtract(LOOK_AT, EYE)
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0, 0, 1])
    right /= np.linalg.norm(right)
    axes = np.stack([right, np.cross(forward, right), forward])
    spread = np.tan(np.radians(FIELD_OF_VIEW) / 2)
    steps = ((np.arange(side) + 0.5) / side * 2 - 1) * spread
    rays = forward + steps[None, :, None] * axes[0] + steps[:, None, None] * axes[1]
    rays = (rays / np.linalg.norm(rays, axis=2, keepdims=True)).reshape(-1, 3)
    return np.ascontiguousarray(rays), axes / np.array([spread, spread, 1.0])[:, None]


def _covered(model: Any, data: Any, group: int, side: int) -> NDArray[np.int64]:
    """Indices of the pixels in which a geom of the group can be: of each geom the rectangle around the corners of its
    box."""
    chosen = np.flatnonzero(model.geom_group == group)
    half = model.geom_aabb[chosen, 3:]
    corners = half[:, None, :] * _CORNERS
    frames = data.geom_xmat[chosen].reshape(-1, 3, 3)
    points = data.geom_xpos[chosen, None, :] + corners @ frames.transpose(0, 2, 1)  # [geom, corner, 3]
    right, down, forward = np.moveaxis((points - EYE) @ _view(side)[1].T, 2, 0)
    place = np.stack([right / forward, down / forward])  # [2, geom, corner], -1..1 inside of the picture
    low = np.clip(np.floor((place.min(axis=2) + 1) * side / 2), 0, side).astype(int)
    high = np.clip(np.ceil((place.max(axis=2) + 1) * side / 2), 0, side).astype(int)
    mask = np.zeros((side, side), np.bool_)
    for (left, top), (over, below) in zip(low.T, high.T, strict=True):
        mask[top:below, left:over] = True
    return np.flatnonzero(mask)


_CORNERS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float64)
