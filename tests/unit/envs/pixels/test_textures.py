"""The tiles."""

from __future__ import annotations

import itertools

import numpy as np

from envs.pixels import textures
from envs.pixels.textures import AREA, COLOURS, FENCE, LEVELS, OPAQUE, PIG, SHEEP, level_of, rgb, start_of


def mean(tile: int, level: int = 0) -> np.ndarray:
    """The colour of a tile as the eye mixes it."""
    texels = slice(start_of(tile, level), start_of(tile, level) + AREA)
    found: np.ndarray = COLOURS[texels][OPAQUE[texels]].mean(0)
    return found


def test_every_tile_can_be_told_from_every_other_by_its_colour() -> None:
    means = [mean(tile) for tile in range(textures.TILES)]
    assert min(np.abs(a - b).max() for a, b in itertools.combinations(means, 2)) > 10


def test_only_fences_and_animals_have_holes() -> None:
    whole = OPAQUE.reshape(textures.TILES, -1).all(1)
    assert np.flatnonzero(~whole).tolist() == [FENCE, PIG, SHEEP]


def test_what_is_far_fades_and_the_farthest_level_is_the_last() -> None:
    haze = np.array([176, 200, 222])
    distances = [np.abs(mean(textures.GRASS, level) - haze).sum() for level in range(LEVELS)]
    assert all(near > far for near, far in itertools.pairwise(distances))
    assert level_of(np.array([0.0, 1.9, 2.1, 1e6])).tolist() == [0, 0, 1, LEVELS - 1]


def test_texels_become_red_green_and_blue() -> None:
    image = rgb(np.full((2, 3), start_of(textures.WATER)))
    assert (image.shape, image.dtype) == ((2, 3, 3), np.dtype(np.uint8))
    assert image[0, 0, 2] > image[0, 0, 0] + 80  # water is blue
