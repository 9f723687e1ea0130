"""Writes tensors into safetensors files, several at once for a large model, with checksums on the way."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import xxhash

if TYPE_CHECKING:
    from torch import Tensor
from deployments.weights.manifest import DTYPE_CODES, FileEntry, Kind, TensorEntry, encode_header

HEADER_BYTES = 64 * 1024  # of a model shard: room for some 500 tensors; a shard that is out of room is closed


LANE_BACKLOG_BYTES = 16 * 1024 * 1024  # above this a second file is written beside the first: Linux locks per file


SMALL_BYTES = 1024 * 1024  # written at once where nothing waits: handing it to a thread would take longer


LANES = min(4, os.cpu_count() or 1)


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
