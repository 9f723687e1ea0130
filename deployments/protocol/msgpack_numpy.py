"""msgpack with numpy arrays, as openpi's clients and servers send it; bounded on the way in. numpy and msgpack only.

An array is the map {b"__ndarray__": True, b"data": bytes, b"dtype": str, b"shape": list}, a numpy scalar the map
{b"__npgeneric__": True, b"data": value, b"dtype": str}. Nothing here is executed or unpickled: arrays hold numbers.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray

Value = Any  # None, bool, int, float, str, bytes, an array, or a list or dict of these: whatever the sender packed

_NUMBERS = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248])|bool|u?int(8|16|32|64)|float(16|32|64)")
_TEXT = re.compile(r"[<>|=]?U\d{1,6}|str")
_MAPS, _ARRAYS, _EXTENSIONS = (
    {*range(0x80, 0x90), 0xDE, 0xDF},
    {*range(0x90, 0xA0), 0xDC, 0xDD},
    {*range(0xC7, 0xCA), *range(0xD4, 0xD9)},
)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one message may hold: `max_bytes` as a whole, `max_values` of everything counted (keys, list items, arrays
    as one), `max_depth` maps or lists in each other, `max_dimensions` of an array."""

    max_bytes: int = 16 * 1024 * 1024
    max_values: int = 16_384
    max_depth: int = 8
    max_dimensions: int = 8


def packed(value: Value) -> bytes:
    """`value` as msgpack. Raises TypeError for an array of objects, records or complex numbers."""
    data: bytes = msgpack.packb(value, default=_described)
    return data


def unpacked(data: bytes, limits: Limits = Limits()) -> Value:
    """The one value in `data`; its arrays are read-only views of `data`. Raises ValueError for anything else, and for
    what is over `limits`, before memory is taken for it."""
    if len(data) > limits.max_bytes:
        raise ValueError(f"a message of {len(data)} bytes; the limit is {limits.max_bytes}")
    return _Reader(data, limits).only_value()


class _Reader:
    """Reads value by value: msgpack's own unpacker would build all of a message before its size can be judged."""

    def __init__(self, data: bytes, limits: Limits) -> None:
        self._data = data
        self._limits = limits
        self._values = 0
        self._unpacker = msgpack.Unpacker(max_buffer_size=limits.max_bytes, strict_map_key=True)
        self._unpacker.feed(data)

    def only_value(self) -> Value:
        try:
            value = self._value(self._limits.max_depth)
        except (msgpack.exceptions.UnpackException, msgpack.exceptions.ExtraData, UnicodeDecodeError) as error:
            raise ValueError(f"not msgpack: {type(error).__name__} {error}") from error
        if self._unpacker.tell() != len(self._data):
            raise ValueError(f"{len(self._data) - self._unpacker.tell()} bytes follow the message: send one value")
        return value

    def _value(self, depth: int) -> Value:
        self._values += 1
        if self._values > self._limits.max_values:
            raise ValueError(f"more than {self._limits.max_values} values: send lists of numbers as numpy arrays")
        at = self._unpacker.tell()
        if at >= len(self._data):
            raise ValueError("the message ends in the middle")
        tag = self._data[at]
        if tag in _EXTENSIONS:
            raise ValueError("extension types are not understood: send numbers, text, bytes and numpy arrays")
        if depth == 0 and (tag in _MAPS or tag in _ARRAYS):
            raise ValueError(f"nested deeper than {self._limits.max_depth} levels")
        if tag in _MAPS:
            return self._map(depth)
        if tag in _ARRAYS:
            return [self._value(depth - 1) for _ in range(self._unpacker.read_array_header())]
        return self._unpacker.unpack()

    def _map(self, depth: int) -> Value:
        found: dict[Any, Value] = {}
        for _ in range(self._unpacker.read_map_header()):
            key = self._value(0)
            if not isinstance(key, str | bytes):
                raise ValueError(f"keys are text, not {type(key).__name__}")
            found[key] = self._value(depth - 1)
        return _restored(found, self._limits)


def _restored(found: dict[Any, Value], limits: Limits) -> Value:
    """The array or number that a map stands for, or the map."""
    if _field(found, "__ndarray__") is True:
        return _array(_field(found, "data"), _field(found, "dtype"), _field(found, "shape"), limits)
    if _field(found, "__npgeneric__") is True:
        return _scalar(_field(found, "data"), _field(found, "dtype"))
    return found


def _field(found: dict[Any, Value], name: str) -> Value:
    return found.get(name.encode(), found.get(name))


def _array(data: Value, dtype: Value, shape: Value, limits: Limits) -> Value:
    if not (isinstance(data, bytes) and isinstance(dtype, str | bytes) and isinstance(shape, list)):
        raise ValueError("an array needs data (bytes), dtype (text) and shape (list)")
    name = dtype.decode("ascii", "replace") if isinstance(dtype, bytes) else dtype
    if not (_NUMBERS.fullmatch(name) or _TEXT.fullmatch(name)):
        raise ValueError(f"an array of dtype {name[:40]!r}: only whole numbers, floats and booleans are taken")
    if len(shape) > limits.max_dimensions or not all(type(size) is int and 0 <= size < 2**31 for size in shape):
        raise ValueError(f"an array's shape has at most {limits.max_dimensions} sizes of 0 or more")
    wanted = np.dtype(name)
    if not wanted.itemsize or math.prod(shape) * wanted.itemsize != len(data):
        raise ValueError(f"{len(data)} bytes do not fill an array of shape {shape} and dtype {name}")
    array: NDArray[Any] = np.frombuffer(data, wanted).reshape(shape)
    if wanted.kind != "U":
        return array
    if array.ndim:
        raise ValueError("an array of text: send text as it is")
    return str(array[()])


def _scalar(data: Value, dtype: Value) -> Value:
    name = dtype.decode("ascii", "replace") if isinstance(dtype, bytes) else str(dtype)
    if _TEXT.fullmatch(name) and isinstance(data, str):
        return data
    if not _NUMBERS.fullmatch(name) or not isinstance(data, bool | int | float):
        raise ValueError(f"a number of dtype {name[:40]!r}: only whole numbers, floats and booleans are taken")
    try:
        return np.dtype(name).type(data)
    except OverflowError as error:
        raise ValueError(f"{data} does not fit dtype {name}") from error


def _described(value: Any) -> dict[bytes, Any]:
    """The map that stands for an array or a numpy number."""
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind not in "biufU":
        raise TypeError(f"cannot send dtype {value.dtype}: only numbers, booleans and text")
    if isinstance(value, np.ndarray):
        described = {b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": list(value.shape)}
        return {b"__ndarray__": True, **described}
    if isinstance(value, np.generic):
        return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}
    raise TypeError(
        f"cannot send {type(value).__name__}: only numbers, text, bytes, arrays, and lists and dicts of them"
    )
