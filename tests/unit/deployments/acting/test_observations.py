"""Images in every spelling become the same bytes; what is no image, or too large, is refused by name."""

from __future__ import annotations

import base64
import contextlib
import io
import struct
import threading
import zlib
from contextlib import AbstractContextManager

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from PIL import Image

from configs.acting import ActConfig
from deployments.acting.observations import (
    ImageLimits,
    decoded,
    frame_from_array,
    frame_from_base64,
    frame_from_encoded,
    frame_from_nested,
    frame_from_numpy_json,
    frame_from_raw_float32,
)
from deployments.errors import PolicyError

LIMITS = ImageLimits(max_pixels=4096, max_bytes=1 << 20)


def png(array: NDArray[np.uint8], mode: str | None = None, **options: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(array, mode).save(out, "PNG", **options)
    return out.getvalue()


def numpy_json(array: NDArray[np.generic], key: str = "__numpy__") -> dict[str, object]:
    data = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
    return {key: data, "dtype": array.dtype.str, "shape": list(array.shape)}


def refused(kind: str, words: str) -> AbstractContextManager[object]:
    return pytest.raises(PolicyError, match=words, check=lambda error: error.kind == kind)


# Frames with a bright pixel: floats of a picture darker than 1.5 of 255 cannot be told from floats of 0..1.
frames = hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))).map(
    lambda array: np.where(np.arange(array.size).reshape(array.shape) == 0, 255, array).astype(np.uint8)
)


@given(frame=frames)
def test_one_frame_has_the_same_bytes_in_every_spelling(frame: NDArray[np.uint8]) -> None:
    units = frame / 255.0
    encoded = base64.b64encode(png(frame)).decode()
    spelt = {
        "nested integers": frame_from_nested(orjson.loads(orjson.dumps(frame.tolist())), LIMITS),
        "nested floats of 0..1": frame_from_nested(units.tolist(), LIMITS),
        "nested floats of 0..255": frame_from_nested(frame.astype(float).tolist(), LIMITS),
        "json_numpy": frame_from_numpy_json(numpy_json(frame), LIMITS),
        "json_numpy as __ndarray__": frame_from_numpy_json(numpy_json(frame, "__ndarray__"), LIMITS),
        "json_numpy of big-endian floats": frame_from_numpy_json(numpy_json(units.astype(">f4")), LIMITS),
        "png": frame_from_encoded(png(frame), LIMITS),
        "base64": frame_from_base64(encoded, LIMITS),
        "base64 in lines": frame_from_base64(base64.encodebytes(png(frame)).decode(), LIMITS),
        "data uri": frame_from_base64(f"data:image/png;base64,{encoded}", LIMITS),
        "array": frame_from_array(frame, LIMITS),
        "Fortran order": frame_from_array(np.asfortranarray(frame), LIMITS),
        "a view that is not contiguous": frame_from_array(np.repeat(frame, 2, axis=1)[:, ::2], LIMITS),
        "upside down twice": frame_from_array(frame[::-1].copy()[::-1], LIMITS),
        "big-endian integers": frame_from_array(frame.astype(">i8"), LIMITS),
        "float64": frame_from_array(units, LIMITS),
        "float32": frame_from_array(units.astype(np.float32), LIMITS),
        "float16": frame_from_array(units.astype(np.float16), LIMITS),
        "floats of 0..255": frame_from_array(frame.astype(np.float32), LIMITS),
    }
    for spelling, found in spelt.items():
        assert (spelling, found.tobytes(), found.shape) == (spelling, frame.tobytes(), frame.shape)
        assert found.dtype == np.uint8
        assert found.flags.c_contiguous


@given(frame=hnp.arrays(np.uint8, st.integers(1, 8).map(lambda side: (side, side, 3))))
def test_raw_floats_of_0_to_1_are_the_frame(frame: NDArray[np.uint8]) -> None:
    assert np.array_equal(frame_from_raw_float32((frame / 255).astype("<f4").tobytes(), LIMITS), frame)


def test_raw_floats_above_1_5_mean_0_to_255() -> None:
    assert frame_from_raw_float32(struct.pack("<3f", 0.0, 1.0, 200.4), LIMITS).tolist() == [[[0, 1, 200]]]
    assert frame_from_raw_float32(struct.pack("<3f", 0.0, 0.5, 1.5), LIMITS).tolist() == [[[0, 128, 255]]]


@pytest.mark.parametrize("size", [0, 1, 12 * 2, 12 * 4 - 4])
def test_raw_bytes_that_are_no_square_are_refused(size: int) -> None:
    with refused("invalid_request", "square float32"):
        frame_from_raw_float32(bytes(size), LIMITS)


def test_a_jpeg_is_what_pillow_decodes() -> None:
    smooth = np.add.outer(np.arange(24) * 5, np.arange(40) * 3)[..., None].astype(np.uint8).repeat(3, axis=2)
    out = io.BytesIO()
    Image.fromarray(smooth).save(out, "JPEG", quality=70)

    found = frame_from_encoded(out.getvalue(), LIMITS)

    assert np.array_equal(found, np.asarray(Image.open(out).convert("RGB")))


def test_the_rotation_that_a_file_claims_is_left_alone() -> None:
    wide = np.zeros((2, 5, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: to be turned by 90 degrees

    assert frame_from_encoded(png(wide, exif=exif), LIMITS).shape == (2, 5, 3)


def test_grey_palette_and_transparent_pictures_become_rgb() -> None:
    grey = np.array([[7, 200]], np.uint8)
    clear = np.array([[[1, 2, 3, 0]]], np.uint8)
    palette = Image.fromarray(np.array([[[9, 8, 7]]], np.uint8)).convert("P", palette=Image.Palette.ADAPTIVE)
    out = io.BytesIO()
    palette.save(out, "PNG")

    assert frame_from_encoded(png(grey), LIMITS).tolist() == [[[7, 7, 7], [200, 200, 200]]]
    assert frame_from_encoded(png(clear), LIMITS).tolist() == [[[1, 2, 3]]]
    assert frame_from_encoded(out.getvalue(), LIMITS).tolist() == [[[9, 8, 7]]]


def test_sixteen_bits_per_channel_are_refused_and_not_cut_off() -> None:
    with refused("invalid_request", "8 bits per channel"):
        frame_from_encoded(png(np.full((2, 2), 40_000, np.uint16)), LIMITS)


def test_truncated_and_corrupt_files_are_refused() -> None:
    whole = png(np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8))
    for data in (b"", b"no image", whole[:40], whole[:-30], whole[:60] + b"\xff" * 40 + whole[100:]):
        with refused("invalid_request", "cannot be decoded"):
            frame_from_encoded(data, LIMITS)


@settings(max_examples=200)
@given(data=st.binary(max_size=80), start=st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"BM"]))
def test_whatever_bytes_come_only_a_policy_error_is_raised(data: bytes, start: bytes) -> None:
    with contextlib.suppress(PolicyError):
        assert frame_from_encoded(start + data, LIMITS).shape[2] == 3


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header promises more pixels than anybody should decode."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(999))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(("width", "height"), [(65, 64), (4000, 4000), (60_000, 60_000), (2**31 - 1, 1)])
def test_a_file_of_too_many_pixels_is_refused_by_its_header(width: int, height: int) -> None:
    with refused("too_large", "pixels"):
        frame_from_encoded(bomb(width, height), LIMITS)


def test_every_spelling_is_bounded() -> None:
    wide = np.zeros((64, 65, 3), np.uint8)
    with refused("too_large", "64 x 65 pixels"):
        frame_from_nested(wide.tolist(), LIMITS)
    with refused("too_large", "64 x 65 pixels"):
        frame_from_numpy_json(numpy_json(wide), LIMITS)
    with refused("too_large", "64 x 65 pixels"):
        frame_from_array(wide, LIMITS)
    with refused("too_large", "65 x 65 pixels"):
        frame_from_raw_float32(bytes(12 * 65 * 65), LIMITS)
    with refused("too_large", "bytes"):
        frame_from_encoded(bytes(LIMITS.max_bytes + 1), LIMITS)
    with refused("too_large", "bytes"):
        frame_from_base64("A" * 2 * LIMITS.max_bytes, LIMITS)
    with refused("too_large", "bytes"):
        frame_from_numpy_json({"__numpy__": "", "dtype": "|u1", "shape": [2**31 - 1, 2**31 - 1, 3]}, LIMITS)


def test_the_limits_of_a_policy_are_its_configuration() -> None:
    config = ActConfig(max_pixels=10, max_image_bytes=2048)

    assert ImageLimits.of(config) == ImageLimits(10, 2048)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((3, 8, 9), r"channels come last, send np.transpose\(image, \(1, 2, 0\)\)"),
        ((1, 8, 9, 3), "without a batch dimension"),
        ((8, 9), "send three channels"),
        ((8, 9, 1), "send three channels"),
        ((8, 9, 4), "send three channels"),
        ((8, 9, 2), "must have shape"),
        ((), "must have shape"),
        ((3,), "must have shape"),
        ((0, 4, 3), "empty"),
        ((4, 0, 3), "empty"),
    ],
)
def test_another_shape_is_refused_with_what_to_send_instead(shape: tuple[int, ...], words: str) -> None:
    with refused("invalid_request", words):
        frame_from_array(np.zeros(shape, np.uint8), LIMITS)
    with refused("invalid_request", "must have shape"):
        frame_from_numpy_json(numpy_json(np.zeros(shape, np.uint8)), LIMITS)


@pytest.mark.parametrize(
    "value",
    [
        np.array([[[0, 0, 256]]]),
        np.array([[[0, 0, -1]]]),
        np.array([[[0.0, 0.0, np.nan]]]),
        np.array([[[0.0, 0.0, np.inf]]]),
        np.array([[[-1.0, 0.0, 1.0]]]),
        np.array([[[0.0, 0.0, 300.0]]]),
        np.array([[[0j, 0j, 0j]]]),
        np.array([[[True, False, True]]]),
        np.array([[["a", "b", "c"]]]),
        np.array([[[None, None, None]]]),
    ],
)
def test_numbers_that_are_no_colours_are_refused(value: NDArray[np.generic]) -> None:
    with pytest.raises(PolicyError) as refusal:
        frame_from_array(value, LIMITS)
    assert refusal.value.kind == "invalid_request"


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [[]],
        [[[]]],
        [[1, 2, 3]],
        [[[1, 2, 3]], [[1, 2]]],
        [[[1, 2, 3]], [[1, 2, 3], [4, 5, 6]]],
        [[[1, 2, 3]], "ab"],
        [[[1, 2, 3]], [7]],
        [[[1, 2, 3]], [{"a": 1, "b": 2, "c": 3}]],
        [[[1, 2, 3]], ["abc"]],
        [[[1, 2, None]]],
        [[[1, 2, [3]]]],
        [[[1, 2, 256]]],
        [[[1, 2, -1]]],
        [[[1, 2, 10**30]]],
        [[[0.5, 2.5, -900.0]]],
        [[[[[[1]]]]]],
    ],
)
def test_lists_that_are_no_image_are_refused(rows: list[object]) -> None:
    with pytest.raises(PolicyError) as refusal:
        frame_from_nested(rows, LIMITS)
    assert refusal.value.kind == "invalid_request"


@pytest.mark.parametrize(
    "text", ["data:image/png,abc", "data:image/png;base64", "!!!!", "AAA", "Ω", "data:;base64,AAAA"]
)
def test_text_that_is_no_image_is_refused(text: str) -> None:
    with pytest.raises(PolicyError) as refusal:
        frame_from_base64(text, LIMITS)
    assert refusal.value.kind == "invalid_request"


def test_a_frame_does_not_change_with_the_array_that_it_was_made_from() -> None:
    array = np.zeros((2, 2, 3), np.uint8)
    frame = frame_from_array(array, LIMITS)

    array[:] = 9

    assert not frame.any()
    assert not frame.flags.writeable


async def test_decoding_leaves_the_event_loop_free() -> None:
    assert await decoded(threading.get_ident) != threading.get_ident()
    with refused("invalid_request", "cannot be decoded"):
        await decoded(frame_from_encoded, b"x", limits=LIMITS)
