"""Files and folders that are read back by name: there whole or not at all, whatever kills their writer."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from configs.base import ConfigError

MODEL_MARKS = ("config.json", "train_config.json")  # a model in Hugging Face format; a checkpoint of a chunk policy


@contextmanager
def written_whole(folder: Path) -> Iterator[Path]:
    """Yields an empty folder beside `folder`; without an exception it takes the place of `folder` at the end, with one
    it is removed and `folder` stays as it was. What an earlier writer of the same name left half done is removed.

    Raises ConfigError, before anything is written, when `folder` holds something else than a model: it would be
    lost."""
    if folder.exists() and not _is_replaceable(folder):
        raise ConfigError(f"{folder} exists and is no model folder: name one that is new or empty")
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left in folder.parent.glob(f".{folder.name}.*.partial"):
        shutil.rmtree(left, ignore_errors=True)
    staged = folder.parent / f".{folder.name}.{uuid.uuid4().hex[:8]}.partial"
    staged.mkdir()
    try:
        yield staged
        for path in staged.rglob("*"):
            if path.is_file():
                _to_disk(path)
        _replace_folder(staged, folder)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Replaces the file in one step. Raises OSError, and then the earlier file stays."""
    staged = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        staged.write_text(text)
        _to_disk(staged)
        staged.replace(path)
    finally:
        staged.unlink(missing_ok=True)


def _is_replaceable(folder: Path) -> bool:
    inside = list(folder.iterdir()) if folder.is_dir() else [folder]
    only_files = folder.is_dir() and all(path.is_file() for path in inside)
    return not inside or (only_files and any((folder / name).is_file() for name in MODEL_MARKS))


def _replace_folder(staged: Path, folder: Path) -> None:
    """A folder that is not empty cannot be replaced by a rename: the old one steps aside first."""
    aside = folder.parent / f".{folder.name}.{uuid.uuid4().hex[:8]}.partial"
    if folder.exists():
        folder.rename(aside)
    staged.rename(folder)
    shutil.rmtree(aside, ignore_errors=True)


def _to_disk(path: Path) -> None:
    """On a full network disk the error comes only here."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
