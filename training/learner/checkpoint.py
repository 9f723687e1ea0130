"""Checkpoints of a run: written to a temporary folder, renamed when complete, verified when read."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any, Protocol

from configs.base import UserError


class CheckpointError(UserError):
    """A checkpoint could not be written or read; the message says which and what to do."""


class Savable(Protocol):
    def save(self, folder: Path) -> None: ...

    def load(self, folder: Path) -> None: ...


def folder_of(root: Path, step: int) -> Path:
    return root / f"step-{step:08d}"


def steps(root: Path) -> list[int]:
    """Steps with a complete checkpoint, ascending."""
    return sorted(int(path.name.removeprefix("step-")) for path in root.glob("step-*") if (path / "done.json").exists())


def latest(root: Path) -> Path | None:
    """The newest complete checkpoint, None where there is none."""
    found = steps(root)
    return folder_of(root, found[-1]) if found else None


def write(root: Path, step: int, learner: Savable, state: dict[str, Any], keep: int = 2, rank: int = 0) -> Path:
    """Every rank writes its part; rank 0 adds `state`, commits by a rename once all parts are there, and prunes.

    Raises CheckpointError when the disk is full or cannot be written; the earlier checkpoints stay.
    """
    target, staged = folder_of(root, step), root / f".step-{step:08d}.tmp"
    try:
        staged.mkdir(parents=True, exist_ok=True)
        learner.save(staged)
        _barrier()
        if rank == 0:
            (staged / "state.pkl").write_bytes(pickle.dumps(state))
            sums = {file.relative_to(staged).as_posix(): _digest(file) for file in _files(staged)}
            (staged / "done.json").write_text(json.dumps({"step": step, "files": sums}))
            for file in _files(staged):
                _fsync(file)
            shutil.rmtree(target, ignore_errors=True)
            staged.rename(target)
            for old in steps(root)[:-keep]:
                shutil.rmtree(folder_of(root, old))
    except (OSError, RuntimeError) as error:
        if rank == 0:
            shutil.rmtree(staged, ignore_errors=True)
        raise CheckpointError(
            f"checkpoint of step {step} could not be written to {root}: {error}. "
            "Free space or set storage_path elsewhere; earlier checkpoints are untouched"
        ) from error
    _barrier()
    return target


def restore(folder: Path, learner: Savable, rank: int = 0) -> dict[str, Any]:
    """Verifies a checkpoint, loads this rank's part into the learner and returns the run's state.

    Raises CheckpointError for a missing or damaged file.
    """
    try:
        done = json.loads((folder / "done.json").read_text())
        for name, digest in done["files"].items():
            if _digest(folder / name) != digest:
                raise CheckpointError(f"{folder / name} is damaged: delete {folder} to resume from an earlier step")
        learner.load(folder)
        state: dict[str, Any] = pickle.loads((folder / "state.pkl").read_bytes())
    except (OSError, KeyError, json.JSONDecodeError) as error:
        raise CheckpointError(
            f"{folder} is no complete checkpoint ({error}): delete it to resume from an earlier step"
        ) from error
    return state


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "blake2b").hexdigest()


def _fsync(file: Path) -> None:
    with file.open("rb") as stream:
        os.fsync(stream.fileno())


def _barrier() -> None:
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        dist.barrier()
