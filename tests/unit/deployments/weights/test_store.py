"""A weight version is published whole or not at all, and is never older than asked for."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from deployments.weights.manifest import VersionOrder, WeightsTimeout
from deployments.weights.store import WeightStore
from tests.unit.deployments.weights.cases import load, pairs, same


def test_what_is_fetched_is_what_was_published(store: WeightStore, tmp_path: Path) -> None:
    assert store.latest() is None
    assert store.versions() == []
    published = store.publish(7, pairs())
    fetched = store.fetch(7, tmp_path / "cache")
    assert fetched.manifest == published
    assert same(load(fetched), pairs())
    assert store.latest() == 7


def test_a_version_must_grow(store: WeightStore) -> None:
    store.publish(3, pairs())
    for version in (3, 2, -1):
        with pytest.raises(VersionOrder, match="cannot follow version 3"):
            store.publish(version, pairs())
    assert store.latest() == 3


def test_an_error_in_the_midst_of_publishing_leaves_the_old_version(store: WeightStore, tmp_path: Path) -> None:
    def broken() -> Iterator[tuple[str, torch.Tensor]]:
        yield from pairs()
        raise RuntimeError("rank 3 is gone")

    store.publish(1, pairs(1.0))
    with pytest.raises(RuntimeError, match="rank 3"):
        store.publish(2, broken())
    assert store.latest() == 1
    assert store.versions() == [1]
    assert same(load(store.fetch(1, tmp_path / "cache")), pairs(1.0))


@pytest.mark.parametrize("moment", ["tensors", "commit", "set_latest"])
def test_a_publisher_killed_at_any_moment_leaves_the_old_version_and_a_new_one_goes_on(
    tmp_path: Path, moment: str
) -> None:
    program = f"""
import os, sys, torch
from deployments.weights.store import WeightStore
store = WeightStore({str(tmp_path)!r})
store.publish(1, [("a", torch.ones(3))])
die = lambda *_: os._exit(9)
if {moment!r} == "tensors":
    tensors = (("a", torch.ones(3)) if i == 0 else die() for i in range(2))
else:
    tensors = [("a", torch.zeros(3))]
    setattr(store._files, {moment!r}, die)
store.publish(2, tensors)
"""
    root = Path(__file__).parents[4]
    assert subprocess.run([sys.executable, "-c", program], cwd=root, check=False).returncode == 9
    store = WeightStore(str(tmp_path))
    assert store.latest() == 1
    assert store.versions() == [1]
    assert torch.equal(load(store.fetch_at_least(0, 0.0))["a"], torch.ones(3))
    store.publish(2, [("a", torch.full((3,), 5.0))])
    assert torch.equal(load(store.fetch(2))["a"], torch.full((3,), 5.0))
    assert not list(tmp_path.glob(".*"))


def test_waiting_for_a_version_ends_when_it_comes(tmp_path: Path) -> None:
    store = WeightStore(str(tmp_path))
    store.publish(1, pairs())
    later = threading.Timer(0.1, lambda: WeightStore(str(tmp_path)).publish(2, pairs(2.0)))
    later.start()
    began = time.monotonic()
    assert store.fetch_at_least(2, deadline_s=10.0).manifest.version == 2
    assert time.monotonic() - began < 5.0
    later.join()


def test_waiting_for_a_version_ends_at_the_deadline(tmp_path: Path) -> None:
    store = WeightStore(str(tmp_path))
    store.publish(1, pairs())
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += max(seconds, 1e-3)

    with pytest.raises(WeightsTimeout, match=r">= 2 .* within 3 s \(latest: 1\)"):
        store.fetch_at_least(2, 3.0, sleep=sleep, clock=lambda: now[0])
    assert 3.0 <= now[0] < 3.1


def test_readers_beside_a_busy_publisher_only_ever_see_whole_versions(tmp_path: Path) -> None:
    store = WeightStore(str(tmp_path / "store"), keep=2)
    store.publish(0, pairs(0.0))
    failures: list[BaseException] = []
    done = threading.Event()

    def read(number: int) -> None:
        reader, newest = WeightStore(store.root, keep=2), 0
        try:
            while not done.is_set():
                fetched = reader.fetch_at_least(newest, 5.0, tmp_path / f"cache{number}")
                assert same(load(fetched), pairs(float(fetched.manifest.version)))
                assert fetched.manifest.version >= newest
                newest = fetched.manifest.version
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=read, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for version in range(1, 40):
        store.publish(version, pairs(float(version)))
    done.set()
    for thread in threads:
        thread.join()
    assert failures == []


def test_clients_import_neither_ray_nor_vllm_nor_torch_by_importing_the_store() -> None:
    program = "import sys, deployments.weights.store; assert not {'ray', 'vllm', 'torch', 'pyarrow'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[4], check=False).returncode == 0


@pytest.mark.parametrize(("keep", "while_writing"), [(1, [3]), (2, [3]), (3, [2, 3])])
def test_room_is_made_before_a_version_is_written_but_the_latest_stays(
    tmp_path: Path, keep: int, while_writing: list[int]
) -> None:
    store = WeightStore(str(tmp_path / "store"), keep=keep)
    for version in range(4):
        store.publish(version, [("w", torch.zeros(2))])
    seen = []

    def tensors() -> Iterator[tuple[str, torch.Tensor]]:
        seen.append(store.versions())
        yield "w", torch.zeros(2)

    store.publish(4, tensors())
    assert seen == [while_writing]
    assert store.versions() == list(range(5 - keep, 5))
