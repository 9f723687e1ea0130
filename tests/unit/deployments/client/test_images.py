"""Frames made small on the robot's side."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from deployments.client.images import Compression, exact, png
from deployments.errors import PolicyError

NOISE = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
ROWS, COLUMNS = np.mgrid[0:480, 0:640]
SCENE = np.stack([ROWS / 2, COLUMNS / 3, 128 + 100 * np.sin(ROWS / 20) * np.cos(COLUMNS / 30)], axis=-1).astype(
    np.uint8
)


def decoded(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


@pytest.mark.parametrize("frame", [SCENE, NOISE], ids=["scene", "noise"])
def test_two_cameras_of_480_by_640_take_less_than_60_kb(frame: np.ndarray) -> None:
    assert 2 * frame.nbytes > 1_800_000

    assert 2 * len(Compression().jpeg(frame)) < 60_000


def test_a_frame_keeps_its_shape_and_its_colours() -> None:
    small = decoded(Compression(longest_side=256).jpeg(SCENE))

    assert small.shape == (192, 256, 3)
    expected = np.asarray(Image.fromarray(SCENE).resize((256, 192), Image.Resampling.BILINEAR))
    assert np.abs(small.astype(int) - expected).mean() < 4


def test_a_small_frame_is_not_blown_up() -> None:
    assert decoded(Compression().jpeg(SCENE[:100, :50])).shape == (100, 50, 3)


def test_base64_holds_the_same_file() -> None:
    compression = Compression()

    assert base64.b64decode(compression.base64(SCENE)) == compression.jpeg(SCENE)


def test_png_loses_nothing() -> None:
    assert np.array_equal(decoded(png(NOISE[::2])), NOISE[::2])


@pytest.mark.parametrize(
    "frame", [SCENE.astype(np.float32), SCENE[..., 0], np.transpose(SCENE, (2, 0, 1)), SCENE[:0], [[1, 2, 3]]]
)
def test_what_is_no_frame_is_refused_before_it_is_sent(frame: np.ndarray) -> None:
    with pytest.raises(PolicyError) as error:
        Compression().jpeg(frame)

    assert error.value.kind == "invalid_request"


def test_an_exact_frame_is_written_as_json_numpy_writes_it() -> None:
    sent = exact(SCENE[:, ::2])
    assert (sent["dtype"], sent["shape"]) == ("|u1", [480, 320, 3])
    assert base64.b64decode(sent["__numpy__"]) == SCENE[:, ::2].tobytes()
    with pytest.raises(PolicyError, match="uint8"):
        exact(SCENE.astype(np.float32))
