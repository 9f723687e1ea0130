"""A reader's cache holds whole versions of this store, few of them, and keeps them while the store prunes."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployments.weights.manifest import MANIFEST, WeightsCorrupt, WeightsMissing
from deployments.weights.places import fill_cache
from deployments.weights.store import WeightStore
from tests.unit.deployments.weights.cases import load, pairs, same


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


def test_a_spoilt_cache_is_fetched_again(store: WeightStore, tmp_path: Path) -> None:
    manifest = store.publish(1, pairs())
    cache = tmp_path / "cache"
    spoilt = store.fetch(1, cache).folder / manifest.shards[0].name
    spoilt.unlink()
    spoilt.write_bytes(b"x")
    reader = WeightStore(store.root)
    with pytest.raises(WeightsCorrupt):
        reader.fetch(1, cache)
    assert same(load(reader.fetch(1, cache)), pairs())


def test_a_cache_from_an_earlier_life_of_the_store_is_not_used(store: WeightStore, tmp_path: Path) -> None:
    store.publish(1, pairs(1.0))
    store.fetch(1, tmp_path / "cache")
    store.destroy()
    store.publish(1, pairs(2.0))
    assert same(load(store.fetch(1, tmp_path / "cache")), pairs(2.0))


def test_old_versions_are_pruned_but_stay_for_a_reader_with_a_cache(store: WeightStore, tmp_path: Path) -> None:
    store.publish(1, pairs(1.0))
    mine = store.fetch(1, tmp_path / "cache")
    for version in (2, 3):
        store.publish(version, pairs(float(version)))
    assert store.versions() == [2, 3]
    assert same(load(mine), pairs(1.0))
    with pytest.raises(WeightsMissing, match=r"there: \[2, 3\].*fetch latest") as error:
        WeightStore(store.root).fetch(1, tmp_path / "another")
    assert error.value.retryable
