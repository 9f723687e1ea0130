"""WeightStore: versions of a policy's weights as verified safetensors files, in a folder or behind an s3:// URI.

A version is published whole or not at all, is never changed afterwards, and every byte of it is checked on arrival.
One process publishes to a store (the learner); any number read. No ray and no vllm here; torch only to publish.

    {root}/LATEST                     the newest version's number, replaced atomically after its folder is complete
    {root}/{version}/manifest.json    names, dtypes, shapes, byte ranges and xxh3-64 checksums
    {root}/{version}/model-00001.safetensors ...     readable by transformers and vLLM as any Hugging Face folder
"""

from __future__ import annotations

import errno
import json
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import xxhash

from deployments.weights.folders import FolderFiles
from deployments.weights.manifest import (
    INDEX,
    MANIFEST,
    FileEntry,
    Kind,
    Manifest,
    NoRoom,
    VersionOrder,
    WeightsCorrupt,
    WeightsMissing,
    WeightsTimeout,
)
from deployments.weights.places import Files
from deployments.weights.shards import write_shards
from deployments.weights.uris import UriFiles
from deployments.weights.verify import verify

if TYPE_CHECKING:
    from torch import Tensor


WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".gguf")


@dataclass(frozen=True, slots=True)
class Fetched:
    """A verified version in a local folder."""

    folder: Path
    manifest: Manifest


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
        """Writes the tensors as `version`, makes it LATEST and deletes all but the newest `keep` versions: room is made
        before it writes, so that the store never holds more, but for LATEST, which stays until there is another.

        The tensors are written as they come and one by one: memory never holds a second copy of the model. Files of
        the folder `config_files` (configuration, tokenizer; no weights) are copied along. A crash at any point leaves
        LATEST as it was. Raises VersionOrder when `version` is not above LATEST, NoRoom when the disk is full,
        ValueError for unusable tensors.
        """
        latest = self._files.latest()
        if version < 0 or (latest is not None and version <= latest):
            raise VersionOrder(
                f"version {version} cannot follow version {latest} in {self._files.where}: a version only grows. "
                "After a resume continue above latest(), or destroy() the store of the earlier run"
            )
        self._prune(max(1, self.keep - 1))
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
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise NoRoom(
                f"version {version} could not be written: {self._files.where} is full. Free space, keep fewer versions "
                "with weights.keep, or set weights.root to a folder with more room; version "
                f"{'none' if latest is None else latest} stays the latest"
            ) from error
        finally:
            shutil.rmtree(staged, ignore_errors=True)
        self._files.set_latest(version)
        self._prune(self.keep)
        return manifest

    def _prune(self, keep: int) -> None:
        """Deletes all but the newest `keep` versions. One above LATEST, left by a crash, is not counted."""
        for version in self.versions()[:-keep]:
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


def _copy_config(source: Path, target: Path) -> tuple[FileEntry, ...]:
    entries = []
    for path in sorted(source.iterdir()):
        if not path.is_file() or path.suffix in WEIGHT_SUFFIXES or path.name in (MANIFEST, INDEX):
            continue
        data = path.read_bytes()
        (target / path.name).write_bytes(data)
        entries.append(FileEntry(path.name, len(data), xxhash.xxh3_64_hexdigest(data)))
    return tuple(entries)
