"""Versions behind a URI: here a local file system, as pyarrow.fs opens it."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployments.weights.manifest import MANIFEST, WeightsCorrupt
from deployments.weights.uris import UriFiles


def commit(files: UriFiles, version: int, content: str = "{}") -> None:
    staged = files.stage()
    (staged / MANIFEST).write_text(content)
    (staged / "weights").write_text(content)
    files.commit(staged, version)


@pytest.fixture
def files(tmp_path: Path) -> UriFiles:
    return UriFiles((tmp_path / "store").as_uri())


def test_a_place_that_nobody_wrote_to_has_no_versions(files: UriFiles) -> None:
    assert files.latest() is None
    assert files.versions() == []


def test_a_version_arrives_whole_in_a_readers_cache(files: UriFiles, tmp_path: Path) -> None:
    commit(files, 3, "three")
    files.set_latest(3)
    folder = files.local_folder(3, tmp_path / "cache")
    assert files.latest() == 3
    assert {path.name: path.read_text() for path in folder.iterdir()} == {MANIFEST: "three", "weights": "three"}


def test_a_version_without_its_manifest_is_not_there_yet(files: UriFiles, tmp_path: Path) -> None:
    """An object store cannot rename: the manifest is uploaded last."""
    commit(files, 3)
    (tmp_path / "store" / "3" / MANIFEST).unlink()
    assert files.versions() == []


def test_a_deleted_version_is_gone(files: UriFiles) -> None:
    commit(files, 3)
    commit(files, 4)
    files.delete(3)
    assert files.versions() == [4]


def test_a_pointer_that_holds_no_number_is_told_with_its_uri(files: UriFiles, tmp_path: Path) -> None:
    commit(files, 3)
    (tmp_path / "store" / "LATEST").write_text("?")
    with pytest.raises(WeightsCorrupt, match=r"file://.*LATEST holds no number"):
        files.latest()
