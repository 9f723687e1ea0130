"""Where weight versions are kept: a folder that readers can reach, or anything that pyarrow.fs knows by URI."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import xxhash

from deployments.weights_format import MANIFEST, WeightsCorrupt

LATEST = "LATEST"


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
