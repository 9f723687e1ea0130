"""Images in the spellings of JSON, and what is no image."""

from __future__ import annotations

import numpy as np
import pytest

from deployments.acting.observations import ImageLimits
from deployments.errors import PolicyError
from deployments.transports.http.observation import ActBody, frame
from deployments.transports.http.requests import typed


async def test_a_nested_list_is_a_frame() -> None:
    image = [[[1, 2, 3], [4, 5, 6]]]
    assert np.array_equal(await frame(image, ImageLimits()), np.array(image, np.uint8))


@pytest.mark.parametrize("image", [3, 1.5, True])
async def test_what_is_no_image_is_told_what_would_be(image: object) -> None:
    with pytest.raises(PolicyError, match="must be a nested list, a json_numpy object or base64 text"):
        await frame(image, ImageLimits())


async def test_an_image_over_the_limit_is_too_large() -> None:
    with pytest.raises(PolicyError, match="too_large"):
        await frame([[[1, 2, 3]] * 10] * 10, ImageLimits(max_pixels=99))


def test_fields_of_other_systems_are_ignored() -> None:
    assert typed(ActBody, {"image": 1, "instruction": "go", "robot_name": "widowx"}).instruction == "go"


def test_more_images_than_any_robot_has_are_refused_by_their_number() -> None:
    with pytest.raises(PolicyError, match="images: List should have at most 64 items"):
        typed(ActBody, {"images": [None] * 65})
