"""The tiles of which pictures are made, drawn by a program: 16 x 16 texels each, at eight distances."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

SKY, GRASS, STRAW, PATH, WATER, GRAVEL, CAVE_FLOOR, CEILING = range(8)
ROCK, CAVE_WALL, TREE, HEDGE, FENCE, PIG, SHEEP = range(8, 15)
TILES = 15

TEXELS = 16  # along each edge of a tile; row 0 is the lowest of a wall
AREA = TEXELS * TEXELS
LEVELS = 8  # a tile fades towards its fog; level 0 is near
TEXELS_OF_A_TILE = LEVELS * AREA
CELLS_PER_LEVEL = 2.0

Colour = tuple[int, int, int]
Array = NDArray[np.floating[Any]]  # what is measured in a picture; float32 throughout
Texels = NDArray[np.signedinteger[Any]]  # positions in COLOURS
Tile = NDArray[np.float64]  # [16, 16, 4]: RGB and opacity, 0..255

_HAZE: Colour = (176, 200, 222)
_DARK: Colour = (12, 11, 12)
_FOG = dict.fromkeys((CAVE_FLOOR, CEILING, CAVE_WALL), _DARK)
_MOST_FOG = {_HAZE: 0.5, _DARK: 0.7}  # share of the fog at the last level

_ANIMAL = (
    "................",
    "................",
    "...bbbbbbbbbb...",
    "..bbbbbbbbbbbb..",
    ".bbbbbbbbbbbbbb.",
    ".bbbbffffffbbbb.",
    ".bbbffffffffbbb.",
    ".bbbfkffffkfbbb.",
    ".bbbffffffffbbb.",
    ".bbbbffssffbbbb.",
    ".bbbbffssffbbbb.",
    "..bbbbbbbbbbbb..",
    "...bb......bb...",
    "...bb......bb...",
    "...bb......bb...",
    "...kk......kk...",
)


def level_of(distance: Array) -> Texels:
    """How far a texel at this distance (in cells) has faded: 0 .. LEVELS - 1."""
    return np.minimum(distance / CELLS_PER_LEVEL, LEVELS - 1).astype(np.int32)


def start_of(tile: int, level: int = 0) -> int:
    """Where the texels of a tile begin in COLOURS; texel (row, column) follows at row * TEXELS + column."""
    return tile * TEXELS_OF_A_TILE + level * AREA


def _noisy(colour: Colour, spread: int, seed: str) -> Tile:
    """A colour whose brightness differs by up to `spread` from texel to texel, in clumps of two by two and alone."""
    rng = random.Random(f"texture/{seed}")
    coarse = np.array([[rng.uniform(-1, 1) for _ in range(TEXELS // 2)] for _ in range(TEXELS // 2)])
    fine = np.array([[rng.uniform(-1, 1) for _ in range(TEXELS)] for _ in range(TEXELS)])
    brightness = (coarse.repeat(2, 0).repeat(2, 1) + fine) / 2 * spread
    tile = np.full((TEXELS, TEXELS, 4), 255.0)
    tile[..., :3] = np.array(colour, np.float64) + brightness[..., None]
    return tile


def _sky() -> Tile:
    """Not a picture but a row of 256 shades: from the horizon up."""
    height = np.linspace(0, 1, AREA)[:, None]
    shades = np.array(_HAZE) * (1 - height) + np.array((86, 140, 220)) * height
    return np.concatenate([shades, np.full((AREA, 1), 255.0)], 1).reshape(TEXELS, TEXELS, 4)


def _water() -> Tile:
    tile = _noisy((44, 98, 196), 10, "water")
    for row in (1, 6, 11):
        tile[row, row % 4 : row % 4 + 7, :3] = (110, 160, 232)
        tile[row + 2, 8:14, :3] = (84, 136, 220)
    return tile


def _rock() -> Tile:
    """Grey with cracks; grass grows on the top, two cells above the ground."""
    tile = _noisy((126, 122, 118), 26, "rock")
    for row, column, length in ((2, 3, 6), (5, 9, 6), (8, 1, 5), (11, 7, 7)):
        tile[row, column : column + length, :3] *= 0.6
        tile[row - 1 : row + 1, column, :3] *= 0.7
    tile[14:, :, :3] = _noisy((80, 140, 58), 20, "grown")[14:, :, :3]
    return tile


def _tree() -> Tile:
    tile = _noisy((52, 108, 40), 34, "leaves")
    trunk = _noisy((104, 74, 44), 16, "trunk")
    trunk[:, ::4, :3] *= 0.75
    tile[:7] = trunk[:7]
    return tile


def _fence() -> Tile:
    """Posts at the edges, two rails, and nothing between them."""
    tile = _noisy((162, 112, 58), 14, "fence")
    wood = np.zeros((TEXELS, TEXELS), bool)
    wood[:, :2] = wood[:, -2:] = True
    wood[5:8] = wood[11:14] = True
    tile[..., 3] = wood * 255
    return tile


def _animal(body: Colour, face: Colour, snout: Colour) -> Tile:
    colours = {".": (0, 0, 0, 0), "b": (*body, 255), "f": (*face, 255), "s": (*snout, 255), "k": (30, 26, 26, 255)}
    return np.array([[colours[sign] for sign in line] for line in reversed(_ANIMAL)], np.float64)


_DRAWN: dict[int, Callable[[], Tile]] = {
    SKY: _sky,
    GRASS: lambda: _noisy((92, 158, 64), 22, "grass"),
    STRAW: lambda: _noisy((196, 172, 104), 22, "straw"),
    PATH: lambda: _noisy((150, 118, 78), 18, "path"),
    WATER: _water,
    GRAVEL: lambda: _noisy((106, 96, 86), 26, "gravel"),
    CAVE_FLOOR: lambda: _noisy((66, 58, 52), 16, "cave floor"),
    CEILING: lambda: _noisy((40, 36, 36), 12, "ceiling"),
    ROCK: _rock,
    CAVE_WALL: lambda: _noisy((78, 70, 66), 22, "cave wall"),
    TREE: _tree,
    HEDGE: lambda: _noisy((38, 82, 40), 30, "hedge"),
    FENCE: _fence,
    PIG: lambda: _animal((236, 150, 160), (244, 172, 178), (206, 104, 120)),
    SHEEP: lambda: _animal((236, 234, 228), (198, 170, 140), (120, 96, 80)),
}


def _faded(tile: Tile, fog: Colour) -> list[Tile]:
    """The tile at each level. Only the colours change."""
    shares = [level / (LEVELS - 1) * _MOST_FOG[fog] for level in range(LEVELS)]
    return [np.concatenate([tile[..., :3] * (1 - share) + np.array(fog) * share, tile[..., 3:]], 2) for share in shares]


def _atlas(tiles: Sequence[int]) -> NDArray[np.uint8]:
    """[tiles * levels * 16 * 16, 4]: the sky does not fade."""
    levels = [level for tile in tiles for level in _faded(_DRAWN[tile](), _FOG.get(tile, _HAZE))]
    return np.stack(levels).clip(0, 255).round().astype(np.uint8).reshape(-1, 4)


_ATLAS = _atlas(range(TILES))
COLOURS: NDArray[np.uint8] = np.ascontiguousarray(_ATLAS[:, :3])  # [texels, RGB]
OPAQUE: NDArray[np.bool_] = _ATLAS[:, 3] > 0


def rgb(texels: Texels) -> NDArray[np.uint8]:
    """[H, W] positions in COLOURS to [H, W, 3]."""
    return COLOURS.take(texels, axis=0)
