"""The weight files of a model folder: whether they are whole, how much they hold, and the tensors one by one."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

INDEX = "model.safetensors.index.json"
OTHER_FORMATS = ("*.bin", "*.pt", "*.pth", "*.gguf")
DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


def weights_problem(folder: Path) -> str | None:
    """What is wrong with the weight files of a folder, None when they are whole: each safetensors file has the length
    that its header says, and all that an index names are there. Files of other formats must hold something."""
    missing = _named_by_index(folder) - {path.name for path in folder.glob("*.safetensors")}
    if missing:
        return f"{sorted(missing)[0]}, which {INDEX} names, is missing"
    files = sorted(folder.glob("*.safetensors"))
    for file in files:
        problem = _file_problem(file)
        if problem:
            return f"{file.name} {problem}"
    others = [path for pattern in OTHER_FORMATS for path in folder.glob(pattern) if path.stat().st_size]
    return None if files or others else "it holds no weights (*.safetensors)"


def weight_bytes(folder: Path, dtype: str) -> int:
    """Bytes of all weights of a model folder in this type ("float32", "bfloat16"); 0 for what is no folder here (a hub
    name), and the files' own size where they are not safetensors."""
    files = list(folder.glob("*.safetensors"))
    if not files:
        return sum(path.stat().st_size for pattern in OTHER_FORMATS for path in folder.glob(pattern))
    return DTYPE_BYTES[dtype] * sum(_elements(file) for file in files)


def _named_by_index(folder: Path) -> set[str]:
    index = folder / INDEX
    if not index.is_file():
        return set()
    try:
        return set(json.loads(index.read_text())["weight_map"].values())
    except (ValueError, KeyError):
        return {INDEX + " (unreadable)"}


def _header(file: Path) -> tuple[int, dict[str, dict[str, list[int]]]]:
    """(bytes in front of the tensors, tensor name -> its entry). Raises ValueError for half a header."""
    with file.open("rb") as stream:
        start = stream.read(8)
        if len(start) < 8:
            raise ValueError("it is shorter than 8 bytes")
        (length,) = struct.unpack("<Q", start)
        entries = json.loads(stream.read(min(length, file.stat().st_size)))
    entries.pop("__metadata__", None)
    return 8 + length, entries


def _file_problem(file: Path) -> str | None:
    try:
        before, entries = _header(file)
    except ValueError:
        return "is cut off in its header"
    expected = before + max((entry["data_offsets"][1] for entry in entries.values()), default=0)
    found = file.stat().st_size
    return None if found >= expected else f"is cut off: {found} of {expected} bytes"


def _elements(file: Path) -> int:
    return sum(math.prod(entry["shape"]) for entry in _header(file)[1].values())


def tensors_of(folder: Path) -> Iterator[tuple[str, Any]]:
    """Names and values of all *.safetensors files of a folder, one tensor at a time. Raises FileNotFoundError where
    there are none."""
    from safetensors import safe_open

    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise FileNotFoundError(f"{folder} holds no *.safetensors: it is no model folder")
    for file in files:
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - no mapping
                yield name, opened.get_tensor(name)
