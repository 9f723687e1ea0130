"""Arrays as clients spell them in JSON: bounded, of a plain number type, never unpickled."""

from __future__ import annotations

import binascii
import math
import re
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from deployments.errors import PolicyError
from deployments.protocol.act import Vector

# Integers and floats of either byte order, by numpy's short or long names. Nothing else is a number: object and void
# could run code or hide anything, complex and dates mean nothing here.
_NUMBER_TYPE = re.compile(r"[<>|=]?(?:u1|u2|u4|u8|i1|i2|i4|i8|f2|f4|f8|u?int(?:8|16|32|64)|float(?:16|32|64))")
_MOST_DIMENSIONS = 4
_MOST_NUMBERS = 4096  # of a vector: no robot has more joints


def array_from_numpy_json(value: Mapping[str, object], max_bytes: int) -> NDArray[np.generic]:
    """The array in `{"__numpy__": base64 of the raw bytes in C order, "dtype": "|u1", "shape": [H, W, 3]}`; the key may
    be spelt `__ndarray__`, too. Read-only.

    Raises PolicyError("invalid_request") for anything else, PolicyError("too_large") beyond `max_bytes`.
    """
    text = value.get("__numpy__", value.get("__ndarray__"))
    if not isinstance(text, str):
        raise PolicyError("invalid_request", "an array as an object needs __numpy__ (base64 text), dtype and shape")
    dtype = number_type(value.get("dtype"))
    shape = _shape(value.get("shape"))
    expected_bytes = math.prod(shape) * dtype.itemsize
    if expected_bytes > max_bytes:
        raise PolicyError("too_large", f"an array of {expected_bytes} bytes; the limit is {max_bytes}")
    data = bytes_from_base64(text, max_bytes)
    if len(data) != expected_bytes:
        raise PolicyError(
            "invalid_request",
            f"an array of {dtype} {list(shape)} has {expected_bytes} bytes, but {len(data)} were sent",
        )
    return np.frombuffer(data, dtype).reshape(shape)


def number_type(name: object) -> np.dtype[np.generic]:
    """The numpy type of that name. Raises PolicyError("invalid_request") unless it is a plain integer or float."""
    if not isinstance(name, str) or not _NUMBER_TYPE.fullmatch(name):
        raise PolicyError(
            "invalid_request", f"dtype must name integers or floats, such as |u1 or <f4, got {_shown(name)}"
        )
    return np.dtype(name)


def bytes_from_base64(text: str, max_bytes: int) -> bytes:
    """Line breaks may stand anywhere in `text`. Raises PolicyError("invalid_request" | "too_large")."""
    if len(text) // 4 * 3 > 2 * max_bytes:  # before line breaks are taken out, which costs memory
        raise PolicyError("too_large", f"{len(text)} characters of base64; the limit is {max_bytes} bytes")
    text = "".join(text.split())
    if len(text) // 4 * 3 - 2 > max_bytes:
        raise PolicyError("too_large", f"{len(text)} characters of base64; the limit is {max_bytes} bytes")
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except (binascii.Error, ValueError) as error:  # ValueError: characters beyond ASCII
        raise PolicyError("invalid_request", f"not base64: {error}") from error


def vector_from_json(value: object, what: str) -> Vector:
    """[D] from a list of numbers or from an array as an object (see `array_from_numpy_json`). `what` names the field
    in the errors. Raises PolicyError("invalid_request") unless every entry is a finite number, or beyond 4,096."""
    if isinstance(value, Mapping):
        array = array_from_numpy_json(value, max_bytes=8 * _MOST_NUMBERS)
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes) and len(value) <= _MOST_NUMBERS:
        if not all(isinstance(entry, int | float) and not isinstance(entry, bool) for entry in value):
            raise PolicyError("invalid_request", f"{what} must hold numbers only")
        array = np.array([_float(entry) for entry in value], np.float64)
    else:
        raise PolicyError("invalid_request", f"{what} must be a list of at most {_MOST_NUMBERS} numbers")
    return vector_from_array(array, what)


def vector_from_array(array: NDArray[np.generic], what: str) -> Vector:
    """[D] of float32. Raises PolicyError("invalid_request") for another shape, or for a number that is not finite."""
    if array.ndim != 1 or array.size > _MOST_NUMBERS or array.dtype.kind not in "uif":
        raise PolicyError(
            "invalid_request", f"{what} must be one row of at most {_MOST_NUMBERS} numbers, got {_described(array)}"
        )
    with np.errstate(over="ignore"):  # what is beyond float32 becomes infinite and is refused by name
        vector = array.astype(np.float32)
    if not np.isfinite(vector).all():
        raise PolicyError("invalid_request", f"{what} holds a number that is not finite")
    return vector


def _float(number: int | float) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf


def _shape(value: object) -> tuple[int, ...]:
    if (
        not isinstance(value, list | tuple)
        or len(value) > _MOST_DIMENSIONS
        or not all(isinstance(side, int) and not isinstance(side, bool) and 0 <= side < 2**31 for side in value)
    ):
        raise PolicyError(
            "invalid_request", f"shape must be a list of at most {_MOST_DIMENSIONS} sizes, got {_shown(value)}"
        )
    return tuple(value)


def _described(array: NDArray[np.generic]) -> str:
    return f"{array.dtype} {list(array.shape)}"


def _shown(value: object) -> str:
    return repr(value)[:80]
