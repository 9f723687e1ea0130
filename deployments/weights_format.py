"""What a weight version consists of: manifest and safetensors files, how they are written and how they are checked."""

from __future__ import annotations

import json
import mmap
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import xxhash

if TYPE_CHECKING:
    from torch import Tensor

Kind = Literal["full", "adapter"]
MANIFEST, INDEX = "manifest.json", "model.safetensors.index.json"
HEADER_BYTES = 64 * 1024  # of a model shard: room for some 500 tensors; a shard that is out of room is closed
LANE_BACKLOG_BYTES = 16 * 1024 * 1024  # above this a second file is written beside the first: Linux locks per file
SMALL_BYTES = 1024 * 1024  # written at once where nothing waits: handing it to a thread would take longer
LANES = min(4, os.cpu_count() or 1)

DTYPE_CODES = {
    "bool": "BOOL", "uint8": "U8", "int8": "I8", "int16": "I16", "uint16": "U16", "int32": "I32", "uint32": "U32",
    "int64": "I64", "uint64": "U64", "float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F64",
    "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
}  # fmt: skip


class WeightsError(Exception):
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


class _Shard:
    """One safetensors file under construction. The tensors go behind a header of fixed room; the header is written
    last, padded with spaces as the format allows, so that nothing needs to be known in advance."""

    def __init__(self, path: Path, header_bytes: int) -> None:
        self.path = path
        self.header_bytes = header_bytes
        self.data_bytes = 0
        self.header_used = 16
        self.written_bytes = 0  # counted by the lane's thread; all else by the publisher's
        self._file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        os.lseek(self._file, header_bytes, os.SEEK_SET)

    @property
    def backlog(self) -> int:
        """Bytes handed over and not yet written."""
        return self.data_bytes - self.written_bytes

    def fits(self, name: str, rank: int, size: int, itemsize: int, max_bytes: int) -> bool:
        aligned = self.data_bytes % max(itemsize, 1) == 0
        room = self.header_used + _header_cost(name, rank) <= self.header_bytes
        return aligned and room and (self.data_bytes == 0 or self.data_bytes + size <= max_bytes)

    def reserve(self, name: str, rank: int, size: int) -> int:
        begin = self.data_bytes
        self.data_bytes += size
        self.header_used += _header_cost(name, rank)
        return begin

    def append(self, data: memoryview) -> str:
        """Runs in the lane's own thread, in the order of `reserve`."""
        done = 0
        while done < len(data):
            done += os.write(self._file, data[done : done + (1 << 30)])
        self.written_bytes += done
        return xxhash.xxh3_64_hexdigest(data)

    def close(self, entries: Sequence[TensorEntry]) -> FileEntry:
        os.pwrite(self._file, encode_header(entries, self.header_bytes), 0)
        self.abandon()
        return FileEntry(self.path.name, self.header_bytes + self.data_bytes, header_bytes=self.header_bytes)

    def abandon(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _header_cost(name: str, rank: int) -> int:
    """Upper bound of a header entry's bytes: JSON may escape a character to six (twelve outside the BMP)."""
    return 12 * len(name) + 21 * rank + 110 if not name.isascii() else 2 * len(name) + 21 * rank + 110


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


def write_shards(
    folder: Path, tensors: Iterable[tuple[str, Tensor]], kind: Kind, max_shard_bytes: int
) -> tuple[tuple[TensorEntry, ...], tuple[FileEntry, ...]]:
    """Writes the tensors into safetensors files, checksums on the way. Large models are written to several files at
    once, each by its own thread; an adapter is one file (PEFT's layout)."""
    header_bytes = HEADER_BYTES
    if kind == "adapter":
        tensors = list(tensors)  # small; its one header must hold all names
        max_shard_bytes = 1 << 62
        header_bytes = -(-(64 + sum(_header_cost(name, value.ndim) for name, value in tensors)) // 4096) * 4096
    writer = _Writer(folder, kind, header_bytes, max_shard_bytes)
    try:
        for name, tensor in tensors:
            writer.add(name, tensor)
        return writer.finish()
    finally:
        writer.abandon()


class _Writer:
    def __init__(self, folder: Path, kind: Kind, header_bytes: int, max_shard_bytes: int) -> None:
        self._folder, self._kind = folder, kind
        self._header_bytes, self._max_shard_bytes = header_bytes, max_shard_bytes
        self._lanes: list[_Shard] = []
        self._threads = [ThreadPoolExecutor(1) for _ in range(LANES if kind == "full" else 1)]
        self._shards: list[_Shard] = []
        self._pending: list[tuple[TensorEntry, Callable[[], str]]] = []  # and its checksum, once written
        self._names: set[str] = set()

    def add(self, name: str, tensor: Tensor) -> None:
        if name in self._names:
            raise ValueError(f"tensor {name!r} was given twice: publish each name once")
        self._names.add(name)
        dtype = str(tensor.dtype).removeprefix("torch.")
        if dtype not in DTYPE_CODES:
            raise ValueError(f"tensor {name!r} has dtype {dtype}, which safetensors cannot hold: convert it first")
        shape, itemsize = tuple(tensor.shape), tensor.element_size()
        data = _bytes_of(tensor)
        lane = self._lane_for(name, len(shape), len(data), itemsize)
        shard = self._lanes[lane]
        begin = shard.reserve(name, len(shape), len(data))
        entry = TensorEntry(name, dtype, shape, shard.path.name, begin, begin + len(data), "")
        self._pending.append((entry, self._write(lane, data)))

    def _write(self, lane: int, data: memoryview) -> Callable[[], str]:
        shard = self._lanes[lane]
        if len(data) <= SMALL_BYTES and shard.backlog == len(data):
            digest = shard.append(data)
            return lambda: digest
        return self._threads[lane].submit(shard.append, data).result

    def _lane_for(self, name: str, rank: int, size: int, itemsize: int) -> int:
        """The first file that is not busy. When all are, waits: that bounds the copies of device tensors held here."""
        all_open = len(self._lanes) == len(self._threads)
        if all_open and all(shard.backlog > 4 * LANE_BACKLOG_BYTES for shard in self._lanes):
            self._pending[-1][1]()
        lane = next((i for i, shard in enumerate(self._lanes) if shard.backlog < LANE_BACKLOG_BYTES), None)
        if lane is None:
            least_busy = min(range(len(self._lanes)), key=lambda i: self._lanes[i].backlog, default=0)
            lane = least_busy if all_open else len(self._lanes)
        if lane == len(self._lanes):
            self._lanes.append(self._open())
        elif not self._lanes[lane].fits(name, rank, size, itemsize, self._max_shard_bytes):
            self._lanes[lane] = self._open()
        shard = self._lanes[lane]
        if shard.data_bytes == 0 and not shard.fits(name, rank, size, itemsize, self._max_shard_bytes):
            raise ValueError(f"the tensor name {name[:80]!r}... of {len(name)} characters is too long")
        return lane

    def _open(self) -> _Shard:
        number = len(self._shards) + 1
        file = f"model-{number:05d}.safetensors" if self._kind == "full" else "adapter_model.safetensors"
        self._shards.append(_Shard(self._folder / file, self._header_bytes))
        return self._shards[-1]

    def finish(self) -> tuple[tuple[TensorEntry, ...], tuple[FileEntry, ...]]:
        if not self._pending:
            raise ValueError("no tensors to publish: the iterable was empty (a generator that was used before?)")
        entries = tuple(
            TensorEntry(entry.name, entry.dtype, entry.shape, entry.shard, entry.begin, entry.end, checksum())
            for entry, checksum in self._pending
        )
        of_shard: dict[str, list[TensorEntry]] = {shard.path.name: [] for shard in self._shards}
        for entry in entries:
            of_shard[entry.shard].append(entry)
        return entries, tuple(shard.close(of_shard[shard.path.name]) for shard in self._shards)

    def abandon(self) -> None:
        for thread in self._threads:
            thread.shutdown(wait=True, cancel_futures=True)
        for shard in self._shards:
            shard.abandon()


def _bytes_of(tensor: Tensor) -> memoryview:
    """A tensor's bytes; no copy where it already lies contiguous in host memory."""
    import torch

    flat = tensor.detach().to("cpu").contiguous().reshape(-1)
    return memoryview(flat.view(torch.uint8).numpy()) if flat.numel() else memoryview(b"")


def read_manifest(folder: Path) -> Manifest:
    """Raises FileNotFoundError or WeightsCorrupt."""
    path = folder / MANIFEST
    return Manifest.from_json(path.read_text(encoding="utf-8", errors="replace"), str(path))


def verify(folder: Path, version: int) -> Manifest:
    """Compares a version's folder with its manifest: sizes, headers (names, dtypes, shapes, offsets) and checksums.

    Raises WeightsCorrupt naming file and tensor, FileNotFoundError when a file is gone.
    """
    manifest = read_manifest(folder)
    if manifest.version != version:
        raise WeightsCorrupt(f"{folder} holds version {manifest.version} where {version} should be: publish it again")
    for file in manifest.files:
        if xxhash.xxh3_64_hexdigest((folder / file.name).read_bytes()) != file.xxh3:
            raise WeightsCorrupt(f"{folder / file.name} does not match its checksum: publish version {version} again")
    with ThreadPoolExecutor(LANES) as pool:
        for _ in pool.map(lambda shard: _verify_shard(folder, manifest, shard), manifest.shards):
            pass
    return manifest


def _verify_shard(folder: Path, manifest: Manifest, shard: FileEntry) -> None:
    path = folder / shard.name
    entries = [entry for entry in manifest.tensors if entry.shard == shard.name]
    advice = f"publish version {manifest.version} again (or delete the reader's cache)"
    with _mapped(path) as data:
        if len(data) != shard.size:
            raise WeightsCorrupt(f"{path} has {len(data)} bytes instead of {shard.size}: {advice}")
        try:
            header = encode_header(entries, shard.header_bytes)
        except (KeyError, ValueError, struct.error) as error:
            raise WeightsCorrupt(f"the manifest of {path} makes no sense ({error!r}): {advice}") from error
        if data[: shard.header_bytes] != header:
            raise WeightsCorrupt(f"names, dtypes or shapes in {path} differ from the manifest: {advice}")
        for entry in entries:
            view = data[shard.header_bytes + entry.begin : shard.header_bytes + entry.end]
            found = xxhash.xxh3_64_hexdigest(view)
            view.release()
            if found != entry.xxh3:
                raise WeightsCorrupt(
                    f"tensor {entry.name!r} in {path} has checksum {found} instead of {entry.xxh3}: {advice}"
                )


@contextmanager
def _mapped(path: Path) -> Iterator[memoryview]:
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            yield memoryview(b"")
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as view:
            yield view
