"""Nested lists that are read without their hundred thousand Python objects, and what is left to the slower way."""

from __future__ import annotations

import json

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.acting.observations import ImageLimits
from deployments.errors import PolicyError
from deployments.transports.http.nested import parsed_with_image
from deployments.transports.http.observation import frame
from deployments.transports.http.requests import parse


@given(st.integers(1, 5), st.integers(1, 5), st.sampled_from([None, 0, 1]), st.randoms(use_true_random=False))
def test_every_image_of_bytes_is_read_as_it_was_written(height: int, width: int, indent: int | None, draw) -> None:  # type: ignore[no-untyped-def]
    image = [[[draw.randrange(256) for _ in range(3)] for _ in range(width)] for _ in range(height)]
    body = json.dumps({"instruction": 'say "image": [[[1', "image": image, "state": [0.5]}, indent=indent).encode()

    payload = parsed_with_image(body)

    assert isinstance(payload["image"], np.ndarray)
    assert payload["image"].tolist() == image
    assert {**payload, "image": image} == parse(body)


@pytest.mark.parametrize(
    "image",
    [
        [[[1, 2, 3], [4, 5]]],
        [[[1, 2, 3]], [[4, 5, 6], [7, 8, 9]]],
        [[[1, 2]]],
        [[[1, 2, 3, 4]]],
        [[[0.5, 1.0, 0.0]]],
        [[[-1, 2, 3]]],
        [[[256, 2, 3]]],
        [[["1", 2, 3]]],
        [[[None, 2, 3]]],
        [[[[1, 2, 3]]]],
        [[[]]],
        [[1, 2, 3]],
        [],
        "[[[1,2,3]]]",
    ],
)
def test_what_is_no_image_of_bytes_is_left_to_whoever_says_what_is_wrong(image: object) -> None:
    body = orjson.dumps({"image": image, "instruction": "go"})
    assert parsed_with_image(body) == parse(body)


@pytest.mark.parametrize(
    "text",
    [
        '{"history": {"image": [[[1,2,3]]]}, "image": "other"}',
        '{"image": [[[1,2,3]]], "image": "other"}',
        '{"history": {"image": [[[1,2,3]]]}}',
    ],
)
def test_an_image_that_is_not_the_bodys_own_is_left_alone(text: str) -> None:
    assert parsed_with_image(text.encode()) == json.loads(text)


@pytest.mark.parametrize(
    "text", ['{"image": [[[1,,3]]]}', '{"image": [[[1 2,3,4]]]}', '{"image": [[[01,2,3]]]}', '{"image": [[[1,2,3]]]']
)
def test_what_is_no_json_stays_an_error(text: str) -> None:
    with pytest.raises(PolicyError, match="not valid JSON"):
        parsed_with_image(text.encode())


async def test_the_limit_of_pixels_holds() -> None:
    payload = parsed_with_image(orjson.dumps({"image": [[[1, 2, 3]] * 10] * 10}))
    with pytest.raises(PolicyError, match="too_large"):
        await frame(payload["image"], ImageLimits(max_pixels=99))
