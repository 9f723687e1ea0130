"""What a place that keeps weight versions can do, and a reader's own cache of them."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from deployments.weights.manifest import MANIFEST

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
