"""Weight versions in a folder that all readers can reach."""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path

from deployments.weights.manifest import MANIFEST, WeightsCorrupt
from deployments.weights.places import LATEST, fill_cache


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
