"""What a weight version consists of (names, dtypes, shapes, byte ranges, checksums), and what can be wrong with it."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from configs.base import UserError

if TYPE_CHECKING:
    pass


Kind = Literal["full", "adapter"]


MANIFEST, INDEX = "manifest.json", "model.safetensors.index.json"


DTYPE_CODES = {
    "bool": "BOOL", "uint8": "U8", "int8": "I8", "int16": "I16", "uint16": "U16", "int32": "I32", "uint32": "U32",
    "int64": "I64", "uint64": "U64", "float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F64",
    "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
}  # fmt: skip


class WeightsError(UserError):
    """A weight version could not be published or fetched. `retryable`: asking again, maybe for the latest, may help."""

    retryable = False


class WeightsMissing(WeightsError):
    """The version is not there: not published yet, or already pruned."""

    retryable = True


class WeightsTimeout(WeightsError):
    """No version that is new enough within the deadline."""

    retryable = True


class WeightsCorrupt(WeightsError):
    """What lies in the store is not what was published."""


class VersionOrder(WeightsError):
    """A version was published that is not above the latest one."""


class NoRoom(WeightsError):
    """The place of the store has no room for the versions."""


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor: bytes `begin` to `end` after the header of the file `shard`."""

    name: str
    dtype: str  # torch's name, e.g. "bfloat16"
    shape: tuple[int, ...]
    shard: str
    begin: int
    end: int
    xxh3: str


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file that is no shard (config.json, tokenizer files), or one shard (its checksums are the tensors')."""

    name: str
    size: int
    xxh3: str | None = None
    header_bytes: int = 0  # shards: where the tensors begin


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a version consists of. `tensors` keeps the order of publication (a model's layers stay together)."""

    version: int
    kind: Kind
    tensors: tuple[TensorEntry, ...]
    shards: tuple[FileEntry, ...]
    files: tuple[FileEntry, ...] = ()
    published_ns: int = 0  # since 1970: tells a version from one of the same number in an earlier life of the store

    @property
    def total_bytes(self) -> int:
        return sum(tensor.end - tensor.begin for tensor in self.tensors)

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str, where: str) -> Manifest:
        try:
            document = json.loads(text)
            return cls(
                version=int(document["version"]),
                kind=document["kind"],
                tensors=tuple(TensorEntry(**{**t, "shape": tuple(t["shape"])}) for t in document["tensors"]),
                shards=tuple(FileEntry(**entry) for entry in document["shards"]),
                files=tuple(FileEntry(**entry) for entry in document["files"]),
                published_ns=int(document["published_ns"]),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise WeightsCorrupt(f"{where} is no weight manifest ({error!r}): publish the version again") from error


def encode_header(entries: Sequence[TensorEntry], header_bytes: int) -> bytes:
    """The first `header_bytes` bytes of a safetensors file: length, JSON, spaces."""
    document: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    for entry in entries:
        document[entry.name] = {
            "dtype": DTYPE_CODES[entry.dtype],
            "shape": list(entry.shape),
            "data_offsets": [entry.begin, entry.end],
        }
    text = json.dumps(document, separators=(",", ":")).encode()
    if len(text) + 8 > header_bytes:
        raise ValueError(f"a header of {len(text)} bytes does not fit in {header_bytes}")
    return struct.pack("<Q", header_bytes - 8) + text.ljust(header_bytes - 8)


def read_manifest(folder: Path) -> Manifest:
    """Raises FileNotFoundError or WeightsCorrupt."""
    path = folder / MANIFEST
    return Manifest.from_json(path.read_text(encoding="utf-8", errors="replace"), str(path))
