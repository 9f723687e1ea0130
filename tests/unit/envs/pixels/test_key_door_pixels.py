"""KeyDoor as a picture: the rules stay, and the picture tells all that matters."""

from __future__ import annotations

import numpy as np
import pytest

from envs.base import SettingError
from envs.pixels.key_door_pixels import KeyDoorPixels
from tests.unit.envs.games.experts import success
from tests.unit.envs.games.test_key_door import walk


def shown(env: KeyDoorPixels, seed: int) -> np.ndarray:
    image = env.reset(seed).image
    assert image is not None
    return image


def test_a_cell_has_the_pixels_that_were_asked_for() -> None:
    assert shown(KeyDoorPixels(), 0).shape == (56, 56, 3)
    assert shown(KeyDoorPixels(size=3, cell_pixels=10), 0).shape == (30, 30, 3)
    with pytest.raises(SettingError, match="cell_pixels must be at least 4"):
        KeyDoorPixels(cell_pixels=3)


def test_agent_key_and_door_stand_in_their_cells_in_their_colours() -> None:
    env = KeyDoorPixels()
    image = shown(env, 5)
    # the middle pixel of each cell, row by row: blue, yellow, brown, and the rest of the 16 cells light
    middles = {cell: tuple(image[14 * (cell // 4) + 7, 14 * (cell % 4) + 7]) for cell in range(16)}
    agent, key, door = env.layout
    assert (middles[agent], middles[key], middles[door]) == ((40, 80, 220), (240, 200, 0), (130, 80, 40))
    assert sum(colour == (235, 235, 235) for colour in middles.values()) == 13


def test_the_picture_changes_when_the_key_is_taken() -> None:
    env = KeyDoorPixels()
    env.reset(1)
    walk(env, env._key)
    before = env.step("nonsense").observation.image
    taken = env.step("<action>interact</action>")
    assert taken.reward == 0.1
    yellow = np.array([240, 200, 0])
    assert (before == yellow).all(axis=2).any()
    assert not (taken.observation.image == yellow).all(axis=2).any()


def test_the_expert_takes_the_shortest_way() -> None:
    """At most 6 moves to the key and 6 to the door of a grid of 4 x 4, and two interactions."""
    assert success(KeyDoorPixels(max_steps=14), 0.0, 200) == 1.0
