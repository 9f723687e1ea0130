"""Observations of every kind of Gymnasium space become text, and an RGB picture the image."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium import Space, spaces

from envs.base import SettingError
from envs.bridges.gym_observations import IMAGE_TEXT, ObservationWriter, number

PICTURE = spaces.Box(0, 255, (4, 6, 3), np.uint8)


def text(space: Space[Any], value: Any, names: list[str] | None = None, digits: int = 2) -> str:
    return ObservationWriter(space, names, digits)(value).text


@pytest.mark.parametrize(
    ("value", "digits", "written"),
    [
        (0.0312, 2, "0.031"),
        (0.0999, 2, "0.10"),  # the exponent is that of the rounded number
        (-1.27, 2, "-1.3"),
        (123.456, 2, "123"),  # never rounded before the point
        (123.456, 5, "123.46"),
        (0.0000123456, 4, "0.000012"),  # 6 decimals at most
        (4e-9, 2, "0"),
        (-0.0, 2, "0"),
        (3e38, 2, "3.0e+38"),
        (float("-inf"), 2, "-inf"),
    ],
)
def test_a_number_has_its_significant_digits_and_no_more_than_six_decimals(
    value: float, digits: int, written: str
) -> None:
    assert number(value, digits) == written


@pytest.mark.parametrize(
    ("space", "value", "written"),
    [
        (spaces.Discrete(16), np.int64(5), "o0 5"),
        (spaces.Discrete(3, start=-1), -1, "o0 -1"),
        (spaces.Box(-1, 1, (2,)), np.array([-0.034, 0.5], np.float32), "o0 -0.034, o1 0.50"),
        (spaces.Box(0, 9, (2, 2), np.int32), np.array([[1, 2], [3, 4]]), "o0.0 1, o0.1 2, o1.0 3, o1.1 4"),
        (spaces.MultiDiscrete([3, 4]), np.array([2, 3]), "o0 2, o1 3"),
        (spaces.MultiBinary(3), np.array([1, 0, 1], np.int8), "o0 1, o1 0, o2 1"),
        (spaces.Tuple([spaces.Discrete(9), spaces.Box(0, 1, (2,))]), (7, [0.1, 1]), "o0 7, o1.0 0.10, o1.1 1.0"),
        (
            spaces.Dict({"arm": spaces.Box(0, 9, (2,)), "door": spaces.Discrete(2), "note": spaces.Text(9)}),
            {"door": 1, "arm": np.array([0.25, 2]), "note": "open it"},
            "arm.0 0.25, arm.1 2.0, door 1, note open it",
        ),
        (spaces.Text(20), "a plain text", "a plain text"),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_each_kind_of_space_is_written(space: Space[Any], value: Any, written: str) -> None:
    assert text(space, value) == written


def test_names_take_the_place_of_the_labels_in_order() -> None:
    space = spaces.Tuple([spaces.Discrete(32), spaces.Discrete(11), spaces.Discrete(2)])

    assert text(space, (14, 10, 0), ["player", "dealer", "ace"]) == "player 14, dealer 10, ace 0"


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        (["x"], "names must hold 2 texts, for o0, o1; got 1"),
        ("xy", "must be a list of texts"),
        (["x", True], r"must be a list of texts, got \['x', True\] \(in YAML, put yes, no, on, off in quotes\)"),
    ],
)
def test_names_that_do_not_fit_are_refused(names: Any, complaint: str) -> None:
    with pytest.raises(SettingError, match=complaint):
        ObservationWriter(spaces.Box(-1, 1, (2,)), names, 2)


def test_an_rgb_picture_is_the_image_and_a_copy() -> None:
    canvas = np.full((4, 6, 3), 7, np.uint8)
    writer = ObservationWriter(PICTURE, None, 2)

    shown = writer(canvas)
    canvas += 1

    assert writer.has_image
    assert shown.text == IMAGE_TEXT
    assert shown.image is not None
    assert (shown.image == 7).all()


def test_a_picture_among_numbers_is_the_image_and_the_numbers_are_the_text() -> None:
    writer = ObservationWriter(spaces.Dict({"camera": PICTURE, "speed": spaces.Box(0, 9, ())}), ["speed in m/s"], 2)

    shown = writer({"camera": np.zeros((4, 6, 3), np.uint8), "speed": np.float32(1.5)})

    assert shown.text == "speed in m/s 1.5"
    assert shown.image is not None


@pytest.mark.parametrize(
    ("space", "complaint"),
    [
        (spaces.Sequence(spaces.Discrete(2)), "kind Sequence cannot be written"),
        (spaces.Dict({"a": spaces.Sequence(spaces.Discrete(2))}), "kind Sequence at a cannot"),
        (spaces.Tuple([PICTURE, PICTURE]), "several images"),
    ],
)
def test_what_cannot_be_shown_is_refused(space: Space[Any], complaint: str) -> None:
    with pytest.raises(SettingError, match=complaint):
        ObservationWriter(space, None, 2)


def test_no_observation_is_longer_than_announced_or_has_other_characters() -> None:
    space = spaces.Dict({"ü": spaces.Box(-np.inf, np.inf, (3,), np.float64), "t": spaces.Text(6, charset="äb")})
    writer = ObservationWriter(space, None, 15)

    longest = writer({"ü": np.array([-123456789012345.6, -np.inf, -1.23456789e-300]), "t": "äääbbb"}).text

    assert len(longest) <= writer.longest_text
    assert set(longest) <= set(writer.alphabet)
