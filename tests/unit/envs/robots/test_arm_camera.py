"""The camera: what is in front is seen, in its colour."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from envs.base import SettingError
from envs.robots import arm_camera
from envs.robots.arm_camera import COLOURS, EYE, LOOK_AT, Camera
from envs.robots.arm_world import ArmWorld, Layout

RED, BLUE = COLOURS["red"], COLOURS["blue"]
# The ray through the picture's middle: EYE + t (LOOK_AT - EYE). It comes to the height of a cube's top, 4 cm, at
# t = (0.74 - 0.04) / (0.74 - 0.06) = 1.0294, that is at x = -0.14 + 0.40 t = 0.2718, y = 0.46 - 0.49 t = -0.0444.
MIDDLE = (0.2718, -0.0444)
ASIDE = Layout(((*MIDDLE, 0.2), (0.25, 0.15, 0.0)), bowl=(0.38, -0.2), hand=(0.32, 0.1, 0.2))
# A face that looks up: 0.45 + 0.55 * 0.9 / |(0.1, 0.45, 0.9)| = 0.45 + 0.55 * 0.8901 = 0.9396 of its colour.
LIT = 0.9396


def table(layout: Layout = ASIDE) -> ArmWorld:
    pytest.importorskip("mujoco")
    world = ArmWorld()
    world.reset(layout)
    return world


def along_the_ray(world: ArmWorld, number: int, t: float) -> None:
    """Moves an object's centre onto the ray through the picture's middle."""
    import mujoco

    world.data.qpos[8 + 7 * number : 11 + 7 * number] = np.array(EYE) + t * np.subtract(LOOK_AT, EYE)
    mujoco.mj_fwdPosition(world.model, world.data)


def lit(colour: tuple[int, int, int]) -> list[int]:
    return [round(part * LIT) for part in colour]


def test_the_middle_pixel_shows_the_top_of_a_cube_that_stands_there() -> None:
    image = Camera(256).picture(table(), (RED, BLUE))
    assert image.shape == (256, 256, 3)
    assert image.dtype == np.uint8
    assert image[128, 128].tolist() == lit(RED)
    assert Camera(256).picture(table(), (BLUE, RED))[128, 128].tolist() == lit(BLUE)


def place_of(image: np.ndarray) -> tuple[float, float]:
    """Mean row and column of what is clearly blue."""
    rows, columns = np.nonzero(image[..., 2] > image[..., 0].astype(int) + 60)
    return rows.mean(), columns.mean()


def test_what_is_lifted_moves_up_in_the_picture_and_what_moves_left_moves_left() -> None:
    world, camera = table(), Camera(256)
    import mujoco

    row, column = place_of(camera.picture(world, (RED, BLUE)))
    world.data.qpos[8 + 7 + 2] += 0.05
    mujoco.mj_fwdPosition(world.model, world.data)
    higher, _ = place_of(camera.picture(world, (RED, BLUE)))
    assert higher < row - 5
    world.data.qpos[8 + 7 + 1] += 0.05
    mujoco.mj_fwdPosition(world.model, world.data)
    _, lefter = place_of(camera.picture(world, (RED, BLUE)))
    assert lefter < column - 5


def test_an_object_in_front_hides_the_one_behind_it() -> None:
    world, camera = table(), Camera(256)

    def reddish() -> bool:
        red, _, blue = camera.picture(world, (RED, BLUE))[128, 128]
        return bool(red > blue)

    assert reddish()
    along_the_ray(world, 1, 0.7)  # the blue cube, between the eye and the red one
    assert not reddish()
    along_the_ray(world, 1, 1.2)  # below the table
    assert reddish()


def test_the_table_hides_what_is_below_it() -> None:
    world = table()
    world.data.qpos[8 : 8 + 3] = -5, 0, 0  # out of sight: the background of the middle
    along_the_ray(world, 1, 1.2)
    image = Camera(256).picture(world, (RED, BLUE))
    assert not (image[..., 2] > image[..., 0].astype(int) + 60).any()


def test_casting_only_where_something_can_be_gives_the_whole_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    world = table()
    world.act(np.array([0.02, 0, -0.02, 0.1, 0.1, 0.1, 0.3]))
    quick = Camera(256).picture(world, (RED, BLUE))
    monkeypatch.setattr(arm_camera, "_covered", lambda model, data, group, side: np.arange(side * side))
    assert (Camera(256).picture(world, (RED, BLUE)) == quick).all()


def test_one_camera_sees_the_bowl_of_each_table() -> None:
    camera = Camera(128)
    moved = Layout(ASIDE.objects, bowl=(0.30, 0.0), hand=ASIDE.hand)
    first, second = camera.picture(table(), (RED, BLUE)), camera.picture(table(moved), (RED, BLUE))
    assert (first != second).any()
    assert (second == Camera(128).picture(table(moved), (RED, BLUE))).all()


def test_a_picture_is_the_callers_own() -> None:
    world, camera = table(), Camera(256)
    first = camera.picture(world, (RED, BLUE))
    copy = first.copy()
    first[:] = 0
    assert (camera.picture(world, (RED, BLUE)) == copy).all()


def test_the_fingers_are_seen_to_close() -> None:
    world, camera = table(), Camera(64)
    before = camera.picture(world, (RED, BLUE))
    for _ in range(2):
        world.act(np.zeros(7))
    assert (camera.picture(world, (RED, BLUE)) != before).any()


def test_a_small_picture_is_the_mean_of_four_rays_per_pixel() -> None:
    small = Camera(128).picture(table(), (RED, BLUE)).astype(int)
    large = Camera(256).picture(table(), (RED, BLUE)).astype(int)
    mean = (large[0::2, 0::2] + large[0::2, 1::2] + large[1::2, 0::2] + large[1::2, 1::2]) / 4
    assert np.abs(small - mean).max() <= 0.5


def test_a_pickled_camera_carries_no_picture_and_takes_the_same_one() -> None:
    world, camera = table(), Camera(256)
    image = camera.picture(world, (RED, BLUE))
    pickled = pickle.dumps(camera)
    assert len(pickled) < 1000
    assert (pickle.loads(pickled).picture(world, (RED, BLUE)) == image).all()


@pytest.mark.parametrize("side", [0, 15, 1025])
def test_a_side_without_a_picture_is_refused(side: int) -> None:
    with pytest.raises(SettingError, match=r"side must lie in 16\.\.1024"):
        Camera(side)
