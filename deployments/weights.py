"""WeightStore: versions of a policy's weights as verified safetensors files, in a folder or behind an s3:// URI.

A version is published whole or not at all, is never changed afterwards, and every byte of it is checked on arrival.
One process publishes to a store (the learner); any number read. No ray and no vllm here; torch only to publish.

    {root}/LATEST                     the newest version's number, replaced atomically after its folder is complete
    {root}/{version}/manifest.json    names, dtypes, shapes, byte ranges and xxh3-64 checksums
    {root}/{version}/model-00001.safetensors ...     readable by transformers and vLLM as any Hugging Face folder
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import xxhash

if TYPE_CHECKING:
    from torch import Tensor

Kind = Literal["full", "adapter"]
MANIFEST, LATEST, INDEX = "manifest.json", "LATEST", "model.safetensors.index.json"
HEADER_BYTES = 64 * 1024  # of a model shard: room for some 500 tensors; a shard that is out of room is closed
LANE_BACKLOG_BYTES = 16 * 1024 * 1024  # above this a second file is written beside the first: Linux locks per file
SMALL_BYTES = 1024 * 1024  # written at once where nothing waits: handing it to a thread would take longer
LANES = min(4, os.cpu_count() or 1)
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".gguf")

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


@dataclass(frozen=True, slots=True)
class Fetched:
    """A verified version in a local folder."""

    folder: Path
    manifest: Manifest


class Files(Protocol):
    """Where versions are kept. A version becomes visible in `commit`, as the last thing that happens there."""

    where: str
    poll_s: float  # how often a waiting reader looks

    def stage(self) -> Path: ...

    def commit(self, staged: Path, version: int) -> None: ...

    def latest(self) -> int | None: ...

    def set_latest(self, version: int) -> None: ...

    def versions(self) -> list[int]: ...

    def local_folder(self, version: int, cache: Path | None) -> Path: ...

    def delete(self, version: int) -> None: ...

    def destroy(self) -> None: ...


class WeightStore:
    """Versions of one policy's weights under `root`: a folder (shared memory, a disk) or a URI of pyarrow.fs."""

    def __init__(self, root: str, keep: int = 4, files: Files | None = None) -> None:
        if keep < 1:
            raise ValueError(f"keep must be at least 1, got {keep}")
        self.root = root
        self.keep = keep
        self._files = files or (UriFiles(root) if "://" in root else FolderFiles(Path(root)))
        self._verified: dict[Path, tuple[str, Manifest]] = {}  # folder -> the manifest it was checked against

    def publish(
        self,
        version: int,
        tensors: Iterable[tuple[str, Tensor]],
        config_files: Path | None = None,
        kind: Kind = "full",
        max_shard_bytes: int = 4 * 1024**3,
    ) -> Manifest:
        """Writes the tensors as `version`, makes it LATEST and deletes all but the newest `keep` versions.

        The tensors are written as they come and one by one: memory never holds a second copy of the model. Files of
        the folder `config_files` (configuration, tokenizer; no weights) are copied along. A crash at any point leaves
        LATEST as it was. Raises VersionOrder when `version` is not above LATEST, ValueError for unusable tensors.
        """
        latest = self._files.latest()
        if version < 0 or (latest is not None and version <= latest):
            raise VersionOrder(
                f"version {version} cannot follow version {latest} in {self._files.where}: a version only grows. "
                "After a resume continue above latest(), or destroy() the store of the earlier run"
            )
        staged = self._files.stage()
        try:
            entries, shards = write_shards(staged, tensors, kind, max_shard_bytes)
            copied = _copy_config(config_files, staged) if config_files is not None else ()
            manifest = Manifest(version, kind, entries, shards, copied, time.time_ns())
            if kind == "full":
                weight_map = {entry.name: entry.shard for entry in entries}
                index = {"metadata": {"total_size": manifest.total_bytes}, "weight_map": weight_map}
                (staged / INDEX).write_text(json.dumps(index))
            (staged / MANIFEST).write_text(manifest.to_json())
            self._files.commit(staged, version)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
        self._files.set_latest(version)
        self._prune(version)
        return manifest

    def _prune(self, latest: int) -> None:
        stale = [version for version in self._files.versions() if version < latest]
        for version in stale[: max(0, len(stale) - (self.keep - 1))]:
            self._files.delete(version)

    def latest(self) -> int | None:
        """The newest complete version; None in an empty store."""
        return self._files.latest()

    def versions(self) -> list[int]:
        """The versions that can be fetched, ascending."""
        latest = self._files.latest()
        return [] if latest is None else [version for version in self._files.versions() if version <= latest]

    def fetch(self, version: int, cache: Path | None = None) -> Fetched:
        """The version as a local folder, every byte checked.

        `cache` is a folder that belongs to this reader: the version is brought there (hard links where it can be) and
        stays while the store prunes; its two newest versions are kept. Without it a folder store answers with its own
        folder, which may be pruned later. Raises WeightsMissing or WeightsCorrupt.
        """
        try:
            folder = self._files.local_folder(version, cache)
            manifest = self._check(folder, version)
        except FileNotFoundError as error:
            present = self.versions()
            raise WeightsMissing(
                f"version {version} is not in {self._files.where} (there: {present or 'none'}; missing: "
                f"{error.filename or error}): it is unpublished, or pruned as older than the newest {self.keep}; "
                "fetch latest(), or raise `keep`"
            ) from error
        except WeightsCorrupt:
            if cache is not None:  # the next try brings a fresh copy
                shutil.rmtree(cache / str(version), ignore_errors=True)
            raise
        return Fetched(folder, manifest)

    def _check(self, folder: Path, version: int) -> Manifest:
        """`verify`, once for each folder and manifest."""
        text = (folder / MANIFEST).read_text(encoding="utf-8", errors="replace")
        if (known := self._verified.get(folder)) is not None and known[0] == text:
            return known[1]
        manifest = verify(folder, version)
        self._verified = {**dict(list(self._verified.items())[-self.keep :]), folder: (text, manifest)}
        return manifest

    def fetch_at_least(
        self,
        min_version: int,
        deadline_s: float,
        cache: Path | None = None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> Fetched:
        """Waits until a version >= `min_version` is published and fetches the latest.

        Waits for: the publisher. Unblocked by: LATEST. Raises WeightsTimeout after `deadline_s` seconds.
        """
        end = clock() + deadline_s
        while True:
            latest = self._files.latest()
            if latest is not None and latest >= min_version:
                try:
                    return self.fetch(latest, cache)
                except WeightsMissing:  # pruned between the two lines: a newer one is there
                    if clock() >= end:
                        raise
            if clock() >= end:
                raise WeightsTimeout(
                    f"no weight version >= {min_version} in {self._files.where} within {deadline_s:g} s (latest: "
                    f"{latest}): is the learner alive, and does it publish to this root?"
                )
            sleep(min(self._files.poll_s, max(0.0, end - clock())))

    def destroy(self) -> None:
        """Deletes the store with all its versions."""
        self._verified.clear()
        self._files.destroy()


# --- shards ---------------------------------------------------------------------------------------------------------


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


def _copy_config(source: Path, target: Path) -> tuple[FileEntry, ...]:
    entries = []
    for path in sorted(source.iterdir()):
        if not path.is_file() or path.suffix in WEIGHT_SUFFIXES or path.name in (MANIFEST, INDEX):
            continue
        data = path.read_bytes()
        (target / path.name).write_bytes(data)
        entries.append(FileEntry(path.name, len(data), xxhash.xxh3_64_hexdigest(data)))
    return tuple(entries)


# --- verification ---------------------------------------------------------------------------------------------------


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
    import mmap

    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            yield memoryview(b"")
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as view:
            yield view


# --- where versions are kept ----------------------------------------------------------------------------------------


class FolderFiles:
    """A folder on this machine or on a disk all machines share."""

    poll_s = 0.005

    def __init__(self, root: Path) -> None:
        self.root = root
        self.where = str(root)

    def stage(self) -> Path:
        """A fresh folder beside the versions; what a dead publisher left behind is removed."""
        self.root.mkdir(parents=True, exist_ok=True)
        for path in self.root.glob(".staged-*"):
            shutil.rmtree(path, ignore_errors=True)
        for path in self.root.glob(f".{LATEST}-*"):
            path.unlink(missing_ok=True)
        staged = self.root / f".staged-{uuid.uuid4().hex}"
        staged.mkdir()
        return staged

    def commit(self, staged: Path, version: int) -> None:
        if (self.root / str(version)).exists():  # complete but never announced: its publisher died before LATEST
            self.delete(version)
        staged.rename(self.root / str(version))

    def latest(self) -> int | None:
        try:
            return int((self.root / LATEST).read_text())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise WeightsCorrupt(f"{self.root / LATEST} holds no number: write the newest version into it") from error

    def set_latest(self, version: int) -> None:
        temporary = self.root / f".{LATEST}-{uuid.uuid4().hex}"
        temporary.write_text(str(version))
        temporary.replace(self.root / LATEST)

    def versions(self) -> list[int]:
        if not self.root.is_dir():
            return []
        return sorted(int(name) for name in os.listdir(self.root) if name.isdigit())

    def local_folder(self, version: int, cache: Path | None) -> Path:
        folder = self.root / str(version)
        if cache is None:
            return folder
        return fill_cache(cache, version, (folder / MANIFEST).read_bytes(), lambda into: _link_files(folder, into))

    def delete(self, version: int) -> None:
        trash = self.root / f".staged-{uuid.uuid4().hex}"  # a reader sees the version vanish at once, never half
        (self.root / str(version)).rename(trash)
        shutil.rmtree(trash, ignore_errors=True)

    def destroy(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)


def _link_files(source: Path, target: Path) -> None:
    for path in source.iterdir():
        try:
            os.link(path, target / path.name)
        except OSError as error:
            if isinstance(error, FileNotFoundError):
                raise
            shutil.copyfile(path, target / path.name)


class UriFiles:
    """Any file system that pyarrow.fs knows by URI. Object stores cannot rename: the manifest is uploaded last."""

    poll_s = 0.5

    def __init__(self, uri: str) -> None:
        from pyarrow import fs

        self.where = uri
        self._fs, self._path = fs.FileSystem.from_uri(uri)
        self._any = fs.FileSelector

    def stage(self) -> Path:
        return Path(tempfile.mkdtemp(prefix="rayward-weights-"))

    def commit(self, staged: Path, version: int) -> None:
        if version in self.versions():
            self.delete(version)
        self._fs.create_dir(f"{self._path}/{version}", recursive=True)
        names = [path.name for path in staged.iterdir() if path.name != MANIFEST]
        with ThreadPoolExecutor(8) as pool:
            for _ in pool.map(lambda name: self._upload(staged / name, version), names):
                pass
        self._upload(staged / MANIFEST, version)

    def _upload(self, path: Path, version: int) -> None:
        with path.open("rb") as source, self._fs.open_output_stream(f"{self._path}/{version}/{path.name}") as target:
            shutil.copyfileobj(source, target, 8 * 1024 * 1024)

    def latest(self) -> int | None:
        try:
            with self._fs.open_input_stream(f"{self._path}/{LATEST}") as stream:
                return int(stream.read())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise WeightsCorrupt(f"{self.where}/{LATEST} holds no number: write the newest version in it") from error

    def set_latest(self, version: int) -> None:
        if self._fs.type_name == "local":  # the one that is not replaced atomically by writing it
            with self._fs.open_output_stream(f"{self._path}/.{LATEST}") as stream:
                stream.write(str(version).encode())
            self._fs.move(f"{self._path}/.{LATEST}", f"{self._path}/{LATEST}")
            return
        with self._fs.open_output_stream(f"{self._path}/{LATEST}") as stream:
            stream.write(str(version).encode())

    def versions(self) -> list[int]:
        found = self._fs.get_file_info(self._any(self._path, allow_not_found=True, recursive=True))
        manifests = [info.path.split("/")[-2] for info in found if info.path.endswith(f"/{MANIFEST}")]
        return sorted(int(name) for name in manifests if name.isdigit())

    def local_folder(self, version: int, cache: Path | None) -> Path:
        cache = (
            cache or Path(tempfile.gettempdir()) / f"rayward-weights-{xxhash.xxh3_64_hexdigest(self.where.encode())}"
        )
        with self._fs.open_input_stream(f"{self._path}/{version}/{MANIFEST}") as stream:
            manifest: bytes = stream.read()
        return fill_cache(cache, version, manifest, lambda into: self._download(version, into))

    def _download(self, version: int, into: Path) -> None:
        found = self._fs.get_file_info(self._any(f"{self._path}/{version}"))
        with ThreadPoolExecutor(8) as pool:
            for _ in pool.map(lambda info: self._download_file(info.path, into / info.base_name), found):
                pass

    def _download_file(self, source: str, target: Path) -> None:
        with self._fs.open_input_stream(source) as stream, target.open("wb") as file:
            shutil.copyfileobj(stream, file, 8 * 1024 * 1024)

    def delete(self, version: int) -> None:
        self._fs.delete_file(f"{self._path}/{version}/{MANIFEST}")
        self._fs.delete_dir(f"{self._path}/{version}")

    def destroy(self) -> None:
        if self._fs.get_file_info(self._path).type.name != "NotFound":
            self._fs.delete_dir(self._path)


def fill_cache(cache: Path, version: int, manifest: bytes, fill: Callable[[Path], None], keep: int = 2) -> Path:
    """`cache/{version}` with this very manifest, filled by `fill` unless it is there; whole or not at all. The newest
    `keep` versions stay in the cache."""
    folder = cache / str(version)
    if (folder / MANIFEST).exists() and (folder / MANIFEST).read_bytes() == manifest:
        return folder
    temporary = cache / f".staged-{uuid.uuid4().hex}"
    temporary.mkdir(parents=True)
    try:
        fill(temporary)
        if not (temporary / MANIFEST).exists():
            raise FileNotFoundError(2, "incomplete version", str(folder / MANIFEST))
        shutil.rmtree(folder, ignore_errors=True)
        try:
            temporary.rename(folder)
        except OSError:  # another reader with this cache was first
            if not (folder / MANIFEST).exists():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    for old in sorted(int(path.name) for path in cache.iterdir() if path.name.isdigit())[:-keep]:
        shutil.rmtree(cache / str(old), ignore_errors=True)
    return folder
