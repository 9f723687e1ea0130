"""What clients send as an image, in every spelling, to one form: uint8 RGB [H, W, 3]. Pure, bounded, no network.

Every function gives a read-only Frame and raises PolicyError("invalid_request") for what is no image, or
PolicyError("too_large") for one beyond `limits`. An encoded image is decoded as Pillow does everywhere else; what it
says about rotation (EXIF) is left alone, as cameras of robots and games know no other way up than the sensor's.
Transparency is dropped; grey and palette images become RGB.
"""

from __future__ import annotations

import asyncio
import io
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from configs.acting import ActConfig
from deployments.acting.arrays import array_from_numpy_json, bytes_from_base64
from deployments.errors import PolicyError
from deployments.protocol.act import Frame

P = ParamSpec("P")
T = TypeVar("T")

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
_BYTES_PER_PIXEL = 24  # three float64
_FLOATS_ARE_BYTES_ABOVE = 1.5  # contract: larger floats mean that the client sent 0..255, not 0..1
_SLACK = 0.01  # of the range: what resampling may overshoot


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """The largest image: `max_pixels` is height times width, `max_bytes` what it may take encoded or as an array."""

    max_pixels: int = 4_194_304
    max_bytes: int = 32 * 1024 * 1024

    @staticmethod
    def of(config: ActConfig) -> ImageLimits:
        return ImageLimits(config.max_pixels, config.max_image_bytes)


async def decoded(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """`function(*args)` in a small pool of threads, so that decoding never holds up the event loop."""
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_pool(), lambda: function(*args, **kwargs))


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=4, thread_name_prefix="decode")


def frame_from_encoded(data: bytes, limits: ImageLimits) -> Frame:
    """A JPEG, PNG, WebP or BMP file. Its size is read from its header before a pixel is decoded."""
    if len(data) > limits.max_bytes:
        raise PolicyError("too_large", f"an image of {len(data)} bytes; the limit is {limits.max_bytes}")
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            _check_pixels(image.height, image.width, limits)
            _check_mode(image)
            return _finished(np.asarray(image.convert("RGB")))
    except PolicyError:
        raise
    except Image.DecompressionBombError as error:
        raise PolicyError("too_large", f"an image of too many pixels; the limit is {limits.max_pixels}") from error
    except Exception as error:  # Pillow's decoders raise whatever they stumble over in a corrupt file
        raise PolicyError("invalid_request", f"the image cannot be decoded: {error}") from error


def frame_from_base64(text: str, limits: ImageLimits) -> Frame:
    """An encoded image as base64 text, with or without `data:image/...;base64,` before it."""
    if text.startswith("data:"):
        head, comma, text = text.partition(",")
        if not comma or not head.endswith(";base64"):
            raise PolicyError("invalid_request", "a data: URI of an image must say ;base64, before its data")
    return frame_from_encoded(bytes_from_base64(text, limits.max_bytes), limits)


def frame_from_nested(rows: Sequence[object], limits: ImageLimits) -> Frame:
    """Lists in lists [H][W][3], as JSON has them; integers are 0..255, floats as in `frame_from_array`."""
    height, width = _nested_size(rows, limits)
    flat = chain.from_iterable(chain.from_iterable(rows))  # type: ignore[arg-type]
    try:
        return _finished(np.frombuffer(bytes(flat), np.uint8).reshape(height, width, 3))  # type: ignore[arg-type]
    except (TypeError, ValueError):  # not all are integers of one byte: the slower way, which knows what is wrong
        return frame_from_array(_float_rows(rows, height, width), limits)


def frame_from_numpy_json(value: Mapping[str, object], limits: ImageLimits) -> Frame:
    """An array as an object: `{"__numpy__" or "__ndarray__": base64, "dtype", "shape"}`."""
    return frame_from_array(array_from_numpy_json(value, min(limits.max_bytes, _most_bytes(limits))), limits)


def frame_from_raw_float32(data: bytes, limits: ImageLimits) -> Frame:
    """Square [S, S, 3] of little-endian float32, as robots send it over gRPC."""
    side = math.isqrt(len(data) // 12)
    if side == 0 or side * side * 12 != len(data):
        raise PolicyError(
            "invalid_request", f"raw images are square float32 [S, S, 3], but {len(data)} bytes are no 12 * S * S"
        )
    return frame_from_array(np.frombuffer(data, "<f4").reshape(side, side, 3), limits)


def frame_from_array(array: NDArray[np.generic], limits: ImageLimits) -> Frame:
    """[H, W, 3] of any byte order and memory layout. Integers are 0..255; floats are 0..255 when any is above 1.5, else
    0..1, and are rounded. Channels first is refused: a 3-row image cannot be told from it."""
    _check_shape(array.shape)
    _check_pixels(array.shape[0], array.shape[1], limits)
    if array.dtype == np.uint8:
        return _finished(array)
    if array.dtype.kind in "ui":
        return _finished(_from_integers(array))
    if array.dtype.kind == "f":
        return _finished(_from_floats(array))
    raise PolicyError("invalid_request", f"an image must hold uint8 or float numbers, got {array.dtype}")


def _finished(array: NDArray[np.generic]) -> Frame:
    """C-contiguous and read-only: one frame is shared by the prompt, the session's history and whoever records it."""
    frame: Frame = np.ascontiguousarray(array, np.uint8).view()
    frame.flags.writeable = False
    return frame


def _check_pixels(height: int, width: int, limits: ImageLimits) -> None:
    if height * width > limits.max_pixels:
        raise PolicyError(
            "too_large", f"an image of {height} x {width} pixels; the limit is {limits.max_pixels}: resize it first"
        )


def _check_mode(image: Image.Image) -> None:
    """16 and 32 bits per pixel are refused: Pillow would cut them off at 255 instead of scaling them."""
    if image.mode.startswith(("I", "F")):
        raise PolicyError("invalid_request", f"the image has mode {image.mode}: send 8 bits per channel, RGB")


def _check_shape(shape: tuple[int, ...]) -> None:
    if len(shape) == 3 and shape[2] == 3 and 0 not in shape:
        return
    problem = f"an image must have shape [height, width, 3], got {list(shape)}"
    if len(shape) == 3 and shape[0] == 3:
        problem += ": channels come last, send np.transpose(image, (1, 2, 0))"
    elif len(shape) == 4:
        problem += ": send one image, without a batch dimension"
    elif 0 in shape:
        problem += ": it is empty"
    elif len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 4)):
        problem += ": send three channels, red, green and blue"
    raise PolicyError("invalid_request", problem)


def _from_integers(array: NDArray[np.generic]) -> NDArray[np.uint8]:
    low, high = int(array.min()), int(array.max())
    if low < 0 or high > 255:
        raise PolicyError("invalid_request", f"an image of integers must be in 0..255, got {low}..{high}")
    return array.astype(np.uint8)


def _from_floats(array: NDArray[np.generic]) -> NDArray[np.uint8]:
    values = array.astype(np.float64)
    low, high = float(values.min()), float(values.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise PolicyError("invalid_request", "the image holds a number that is not finite")
    top = 255.0 if high > _FLOATS_ARE_BYTES_ABOVE else 1.0
    if low < -_SLACK * top or high > 255.0 * (1 + _SLACK):
        raise PolicyError(
            "invalid_request", f"an image of floats must be in 0..1 or in 0..255, got {low:.4g}..{high:.4g}"
        )
    return np.rint(np.clip(values / top, 0.0, 1.0) * 255.0).astype(np.uint8)


def _nested_size(rows: object, limits: ImageLimits) -> tuple[int, int]:
    """(H, W) of lists in lists, all rows and pixels looked at by their lengths alone."""
    sizes = []
    level = rows
    while isinstance(level, list | tuple) and len(sizes) <= 4:
        sizes.append(len(level))
        level = level[0] if level else None
    _check_shape(tuple(sizes))
    height, width, _ = sizes
    _check_pixels(height, width, limits)
    if set(map(type, rows)) - {list, tuple} or set(map(len, rows)) != {width}:  # type: ignore[arg-type, call-overload]
        raise PolicyError(
            "invalid_request", f"every row of the image must be a list of {width} pixels, as the first is"
        )
    pixels = chain.from_iterable(rows)  # type: ignore[call-overload]
    try:
        ragged = set(map(len, pixels)) != {3}
    except TypeError:
        ragged = True
    if ragged:
        raise PolicyError("invalid_request", "every pixel of the image must be a list of 3 numbers, as the first is")
    return height, width


def _float_rows(rows: Sequence[object], height: int, width: int) -> NDArray[np.generic]:
    """[H, W, 3] of float64, or of int64 where all are integers."""
    numbers = list(chain.from_iterable(chain.from_iterable(rows)))  # type: ignore[arg-type]
    kinds = set(map(type, numbers))
    if kinds - {int, float}:
        raise PolicyError("invalid_request", "every pixel of the image must be a list of 3 numbers, as the first is")
    try:
        flat = np.array(numbers, np.int64 if kinds == {int} else np.float64)
    except OverflowError as error:
        raise PolicyError("invalid_request", "an image of integers must be in 0..255") from error
    return flat.reshape(height, width, 3)


def _most_bytes(limits: ImageLimits) -> int:
    return limits.max_pixels * _BYTES_PER_PIXEL
