"""Versions in a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployments.weights.folders import FolderFiles
from deployments.weights.manifest import MANIFEST, WeightsCorrupt


def commit(files: FolderFiles, version: int, content: str = "{}") -> None:
    staged = files.stage()
    (staged / MANIFEST).write_text(content)
    files.commit(staged, version)


def test_a_place_that_nobody_wrote_to_has_no_versions(tmp_path: Path) -> None:
    files = FolderFiles(tmp_path / "not" / "there")
    assert files.latest() is None
    assert files.versions() == []


def test_a_version_is_visible_once_it_is_committed_and_latest_once_it_is_announced(tmp_path: Path) -> None:
    files = FolderFiles(tmp_path)
    files.stage()
    assert files.versions() == []
    commit(files, 10)
    commit(files, 9)
    assert files.versions() == [9, 10]
    assert files.latest() is None
    files.set_latest(10)
    assert files.latest() == 10


def test_what_a_dead_publisher_left_is_removed_by_the_next(tmp_path: Path) -> None:
    files = FolderFiles(tmp_path)
    left = files.stage()
    (tmp_path / ".LATEST-half").write_text("1")
    fresh = files.stage()
    assert not left.exists()
    assert [path.name for path in tmp_path.iterdir()] == [fresh.name]


def test_a_version_that_was_never_announced_is_replaced(tmp_path: Path) -> None:
    files = FolderFiles(tmp_path)
    commit(files, 3, "old")
    commit(files, 3, "new")
    assert (files.local_folder(3, None) / MANIFEST).read_text() == "new"


def test_a_reader_with_a_cache_keeps_a_version_that_was_deleted(tmp_path: Path) -> None:
    files = FolderFiles(tmp_path / "store")
    commit(files, 3)
    kept = files.local_folder(3, tmp_path / "cache")
    files.delete(3)
    assert files.versions() == []
    assert (kept / MANIFEST).read_text() == "{}"


def test_a_pointer_that_holds_no_number_is_told_with_its_file(tmp_path: Path) -> None:
    (tmp_path / "LATEST").write_text("?")
    with pytest.raises(WeightsCorrupt, match="LATEST holds no number: write the newest version into it"):
        FolderFiles(tmp_path).latest()


def test_a_destroyed_place_is_gone(tmp_path: Path) -> None:
    files = FolderFiles(tmp_path / "store")
    commit(files, 3)
    files.destroy()
    assert not (tmp_path / "store").exists()
