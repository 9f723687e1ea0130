"""A reader's cache holds whole versions only, and few of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployments.weights.manifest import MANIFEST
from deployments.weights.places import fill_cache


def fill(cache: Path, version: int, manifest: bytes = b"{}") -> Path:
    def write(folder: Path) -> None:
        (folder / MANIFEST).write_bytes(manifest)
        (folder / "weights").write_bytes(manifest)

    return fill_cache(cache, version, manifest, write)


def never(folder: Path) -> None:
    raise AssertionError("it is in the cache already")


def test_a_version_in_the_cache_is_not_fetched_again(tmp_path: Path) -> None:
    folder = fill(tmp_path, 3)
    assert fill_cache(tmp_path, 3, b"{}", never) == folder == tmp_path / "3"


def test_a_version_with_another_manifest_is_fetched_again(tmp_path: Path) -> None:
    """The store was destroyed and began again: its version 3 is another one."""
    fill(tmp_path, 3, b"old")
    assert (fill(tmp_path, 3, b"new") / "weights").read_bytes() == b"new"


def test_a_fetch_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def half(folder: Path) -> None:
        (folder / "weights").write_bytes(b"half")
        raise OSError("the network is gone")

    with pytest.raises(OSError, match="the network is gone"):
        fill_cache(tmp_path, 3, b"{}", half)
    assert list(tmp_path.iterdir()) == []


def test_a_fetch_without_a_manifest_is_no_version(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        fill_cache(tmp_path, 3, b"{}", lambda folder: None)
    assert list(tmp_path.iterdir()) == []


def test_the_newest_versions_stay_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for version in (8, 9, 10):
        fill(tmp_path, version)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["10", "9"]
