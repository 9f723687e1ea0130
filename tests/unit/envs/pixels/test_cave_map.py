"""The map from above."""

from __future__ import annotations

import numpy as np

from envs.pixels.cave_map import PLAYER, map_picture
from envs.pixels.scene import Pose
from envs.pixels.textures import PIG, ROCK
from tests.unit.envs.pixels.scenes import room


def test_the_map_is_sixteen_pixels_a_cell_with_the_player_where_it_stands() -> None:
    image = map_picture(room(), Pose(7.5, 3.5, 45.0))
    assert (image.shape, image.dtype) == ((176, 176, 3), np.dtype(np.uint8))
    rows, columns = np.nonzero((image == PLAYER).all(-1))
    assert abs(columns.mean() / 16 - 7.5) < 0.3
    assert abs(rows.mean() / 16 - 3.5) < 0.3


def test_the_players_arrow_is_narrow_where_it_looks() -> None:
    for yaw, flip in ((90.0, 1), (270.0, -1)):
        arrow = (map_picture(room(), Pose(5.5, 5.5, yaw)) == PLAYER).all(-1)
        widths = arrow.sum(0)[arrow.any(0)][::flip]
        assert widths[0] > 2 * widths[-1]  # wide behind, in the west when it looks to the east


def test_walls_fences_and_animals_are_drawn_in_their_cells_and_roofs_are_darker() -> None:
    plain = map_picture(room(), Pose(9.5, 9.5)).astype(int)
    full = map_picture(
        room(walls={(2, 2): ROCK}, fences=((4, 4),), roofed=((6, 6),), animals=((7.5, 2.5, PIG),)), Pose(9.5, 9.5)
    )
    changed = (plain != full).any(-1).reshape(11, 16, 11, 16).any((1, 3))
    assert sorted(map(tuple, np.argwhere(changed).tolist())) == [(2, 2), (2, 7), (4, 4), (6, 6)]
    roof = np.s_[96:112, 96:112]
    assert full[roof].mean() < plain[roof].mean() * 0.8
