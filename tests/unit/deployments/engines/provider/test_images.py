"""Frames in data URIs: every pixel as it was, and encoded once per content within the memory that is given."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from deployments.engines.provider.images import EncodedImages, png_uri
from deployments.protocol.act import Frame


def frame(seed: int, height: int = 24, width: int = 32) -> Frame:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def pixels(uri: str) -> Frame:
    data = uri.removeprefix("data:image/png;base64,")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


@pytest.mark.parametrize("cache_bytes", [0, 2**20])
def test_every_pixel_is_as_it_was(cache_bytes: int) -> None:
    images = EncodedImages(cache_bytes)
    for _ in range(2):
        assert np.array_equal(pixels(images(frame(0))), frame(0))
        assert np.array_equal(pixels(images(frame(1))), frame(1))


def test_a_frame_with_the_same_content_is_encoded_once() -> None:
    images = EncodedImages(2**20)
    shown = [images(frame(seed)) for seed in (0, 1, 0, 1, 2, 0)]
    assert images.encoded == 3
    assert shown[0] == shown[2] == shown[5] != shown[1]


def test_the_same_bytes_in_another_shape_are_another_frame() -> None:
    images = EncodedImages(2**20)
    wide, high = images(frame(0, 2, 8)), images(frame(0, 2, 8).reshape(8, 2, 3))
    assert (pixels(wide).shape, pixels(high).shape) == ((2, 8, 3), (8, 2, 3))


def test_a_frame_that_is_no_whole_block_of_memory_is_encoded_as_it_is_seen() -> None:
    images = EncodedImages(2**20)
    whole = frame(0, 40, 60)
    assert np.array_equal(pixels(images(whole[::2, ::-1])), whole[::2, ::-1])


def test_the_memory_is_bounded_and_the_frame_that_was_used_longest_ago_goes_first() -> None:
    room = int(2.5 * len(png_uri(frame(0))))
    images = EncodedImages(room)
    for seed in (0, 1, 0, 2):  # 2 takes the place of 1
        images(frame(seed))
    assert images.size_bytes <= room
    assert images.encoded == 3
    images(frame(0))
    assert images.encoded == 3
    images(frame(1))
    assert images.encoded == 4


def test_a_frame_that_is_larger_than_the_memory_is_encoded_and_not_kept() -> None:
    images = EncodedImages(16)
    for _ in range(2):
        images(frame(0))
    assert (images.encoded, images.size_bytes) == (2, 0)
