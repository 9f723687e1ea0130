"""A reader's cache holds whole versions of this store, and keeps them while the store prunes."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployments.weights.manifest import WeightsCorrupt, WeightsMissing
from deployments.weights.store import WeightStore
from tests.unit.deployments.weights.cases import load, pairs, same


def test_a_spoilt_cache_is_fetched_anew(store: WeightStore, tmp_path: Path) -> None:
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
