"""Pictures whose every edge was worked out by hand.

64 pixels and a field of view of 70 degrees: focal length 32 / tan(35) = 45.70 pixels. In the room of `scenes.room` the
player stands in the middle, at (5.5, 5.5), and looks north at a dark wall whose face is y = 1: 4.5 cells away.
"""

from __future__ import annotations

import numpy as np
import pytest

from envs.pixels.ray_caster import RayCaster, ray_caster
from envs.pixels.scene import Pose, Scene
from envs.pixels.textures import PIG, ROCK
from tests.unit.envs.pixels.scenes import room

CASTER = RayCaster(64)
MIDDLE = Pose(5.5, 5.5)


def picture(scene: Scene, pose: Pose = MIDDLE) -> np.ndarray:
    return CASTER.picture(scene, pose).astype(int)


def is_dark(image: np.ndarray) -> np.ndarray:
    """Cave walls and ceilings: no channel is bright."""
    return image.max(-1) < 115


def is_sky(image: np.ndarray) -> np.ndarray:
    return (image[..., 2] > 200) & (image[..., 2] > image[..., 0] + 30)


def is_pink(image: np.ndarray) -> np.ndarray:
    return image[..., 0] > image[..., 1] + 50


def is_grey(image: np.ndarray) -> np.ndarray:
    """Rock: no colour, but not as dark as a cave."""
    return (np.ptp(image, axis=-1) < 45) & ~is_sky(image) & ~is_dark(image)


def test_a_wall_straight_ahead_is_as_high_as_computed_by_hand() -> None:
    # The eye is 0.6 high, the wall 2: it ends 0.6 * 45.70 / 4.5 = 6.09 pixels below the horizon (row 32) and
    # 1.4 * 45.70 / 4.5 = 14.22 above. Rows whose middle lies between: 18 (13.5 above) to 37 (5.5 below).
    image = picture(room())
    for column in (0, 20, 32, 63):  # a flat wall looks flat
        assert np.flatnonzero(is_dark(image[:, column])).tolist() == list(range(18, 38))


def test_a_wall_at_half_the_distance_is_twice_as_high() -> None:
    # Face y = 3.25: 2.25 away, 12.19 pixels below the horizon and 28.43 above: rows 4 (27.5 above) to 43 (11.5 below).
    image = picture(room(), Pose(5.5, 3.25))
    assert np.flatnonzero(is_dark(image[:, 32])).tolist() == list(range(4, 44))


def test_looking_down_moves_the_horizon_up() -> None:
    # By tan(20 degrees) * 45.70 = 16.63 pixels, to 15.37. The wall reaches from 14.22 above it (1.15: row 1 is the
    # first whose middle is lower) to 6.09 below it (21.46, so that row 20 is the last).
    image = picture(room(), Pose(5.5, 5.5, pitch_deg=20.0))
    assert np.flatnonzero(is_dark(image[:, 32])).tolist() == list(range(1, 21))
    assert is_sky(picture(room(), Pose(5.5, 5.5, pitch_deg=-60.0))).all()


@pytest.mark.parametrize("yaw_deg", [0.0, 90.0, 180.0, 270.0])
def test_from_the_middle_of_a_room_both_halves_are_equal(yaw_deg: float) -> None:
    distances = CASTER.distances(room(), Pose(5.5, 5.5, yaw_deg))
    assert np.allclose(distances, 4.5)
    pillars = room(walls={(3, 3): ROCK, (7, 3): ROCK, (3, 7): ROCK, (7, 7): ROCK})
    distances = CASTER.distances(pillars, Pose(5.5, 5.5, yaw_deg))
    assert np.allclose(distances, distances[::-1])
    assert distances.min() < 4


def test_an_animal_is_as_wide_as_computed_by_hand_and_stands_on_the_ground() -> None:
    # 2 cells away and 0.55 wide: 0.55 * 45.70 / 2 = 12.57 pixels around 32, 25.72 to 38.28. A texel of 0.79 pixels at
    # each side is empty, so that columns 27 (middle 27.5) to 36 show its body. It stands 0.6 * 45.70 / 2 = 13.7 pixels
    # below the horizon, at 45.7; its lowest texel, of 0.79 pixels, is a dark hoof.
    found = is_pink(picture(room(animals=((5.5, 3.5, PIG),))))
    columns, rows = np.flatnonzero(found.any(0)), np.flatnonzero(found.any(1))
    assert (columns.min(), columns.max()) == (27, 36)
    assert found[:, 20:45].sum() > 60
    assert rows.max() == 44


def test_an_animal_behind_a_wall_is_hidden() -> None:
    animals = ((5.5, 2.5, PIG),)
    assert is_pink(picture(room(animals=animals))).any()
    hidden = picture(room(walls={(5, 3): ROCK}, animals=animals))
    assert (hidden == picture(room(walls={(5, 3): ROCK}))).all()


@pytest.mark.parametrize("y", [7.5, 5.25], ids=["behind", "where the player stands"])
def test_an_animal_behind_the_player_or_where_it_stands_is_not_seen(y: float) -> None:
    assert (picture(room(animals=((5.5, y, PIG),))) == picture(room())).all()


def test_a_fence_shows_parts_of_what_is_behind_it() -> None:
    animals = ((5.5, 2.5, PIG),)
    whole = is_pink(picture(room(animals=animals))).sum()
    fences = tuple((x, 3) for x in range(1, 10))
    behind = is_pink(picture(room(fences=fences, animals=animals))).sum()
    before = is_pink(picture(room(fences=tuple((x, 1) for x in range(1, 10)), animals=animals))).sum()
    assert 0 < behind < whole
    assert before >= whole


def test_two_fences_are_seen_one_behind_the_other() -> None:
    near, far = tuple((x, 4) for x in range(1, 10)), tuple((x, 2) for x in range(1, 10))
    both, only_near = picture(room(fences=near + far)), picture(room(fences=near))
    changed = np.flatnonzero((both != only_near).any(-1).any(1))
    # The far fence stands on y = 3, 2.5 away: between 0.05 and 0.6 below the eye, 0.9 to 10.97 pixels: rows 32 to 42.
    assert len(changed) > 3
    assert (changed.min() >= 32, changed.max() <= 42) == (True, True)


def cave() -> Scene:
    """Rock over all rows up to y = 4, but for a cave of one column, two cells deep, that opens to the south."""
    walls = {(x, y): ROCK for x in range(1, 10) for y in range(1, 5)}
    del walls[5, 4], walls[5, 3]
    return room(walls=walls, roofed=((5, 4), (5, 3)))


def test_the_mouth_of_a_cave_is_dark_and_there_is_rock_above_it_and_sky_above_that() -> None:
    # From y = 7.5 the face y = 5 is 2.5 away: its top 1.4 * 45.70 / 2.5 = 25.6 above row 32, the mouth's 7.3 above.
    column = picture(cave(), Pose(5.5, 7.5))[:, 32]
    assert is_sky(column[:6]).all()
    assert is_grey(column[10:24]).sum() >= 10
    assert is_dark(column[25:32]).all()
    assert is_grey(picture(cave(), Pose(5.5, 7.5))[24:36, 12]).mean() > 0.5  # beside the mouth there is rock


def test_inside_a_cave_one_sees_no_sky_but_outside_through_the_mouth() -> None:
    assert is_dark(picture(cave(), Pose(5.5, 4.2))[:28]).all()
    out = picture(cave(), Pose(5.5, 3.4, yaw_deg=180.0))
    assert is_sky(out[20:27, 32]).any()
    assert is_dark(out[:8]).all()


def test_pictures_are_of_any_size_and_the_callers_own() -> None:
    first = ray_caster(48).picture(room(), MIDDLE)
    assert (first.shape, first.dtype) == ((48, 48, 3), np.dtype(np.uint8))
    first[:] = 0
    assert ray_caster(48).picture(room(), MIDDLE).any()


def test_no_pose_gives_a_warning_or_an_empty_picture() -> None:
    scene = room(walls={(3, 3): ROCK}, fences=((7, 7), (8, 7)), roofed=((2, 8),), animals=((6.0, 6.0, PIG),))
    with np.errstate(all="raise"):
        for yaw in range(0, 360, 15):
            for pitch in (-60.0, -35.0, 0.0, 35.0, 60.0):
                for x, y in ((5.5, 5.5), (1.2, 1.2), (2.5, 8.5), (9.8, 5.0)):
                    assert CASTER.picture(scene, Pose(x, y, float(yaw), pitch)).any()
