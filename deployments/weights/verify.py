"""Compares a version's folder with its manifest, byte for byte."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import xxhash

if TYPE_CHECKING:
    pass
from deployments.weights.manifest import FileEntry, Manifest, WeightsCorrupt, encode_header, read_manifest
from deployments.weights.shards import LANES


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
