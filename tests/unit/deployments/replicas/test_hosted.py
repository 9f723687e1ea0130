from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import torch

from configs.policies import PolicyConfig
from deployments.replicas import hosted
from deployments.replicas.hosted import HostedEngine
from deployments.weights.store import WeightStore
from tests.unit.deployments.engines.in_memory import InMemoryEngine


@pytest.fixture
def store(tmp_path: Path) -> WeightStore:
    return WeightStore(str(tmp_path / "store"))


def policy(store: WeightStore, follow: bool = False) -> PolicyConfig:
    return PolicyConfig(model="in memory", weights_root=store.root, follow=follow, follow_period_s=0.001)


def publish(store: WeightStore, version: int) -> None:
    store.publish(version, [("w", torch.full((2,), float(version)))])


async def test_an_engine_is_loaded_then_warmed_up_then_brought_to_the_newest_version(store: WeightStore) -> None:
    publish(store, 3)
    engine, order = InMemoryEngine(), []

    async def warm_up() -> None:
        order.append(("warm", engine.loaded, engine.version))

    host = HostedEngine(engine, policy(store), order.append)
    await host.start(warm_up)
    assert order == [("warm", True, 0), 3]
    await host.close()


async def test_a_followed_store_reaches_the_engine_without_a_request(store: WeightStore) -> None:
    """A version that was published beside a running application never reached its users."""
    engine, versions = InMemoryEngine(), asyncio.Queue[int]()
    host = HostedEngine(engine, policy(store, follow=True), versions.put_nowait)
    await host.start()
    for version in (1, 2, 5):
        publish(store, version)
        assert await asyncio.wait_for(versions.get(), 30) == version
    await host.close()


async def test_a_version_that_cannot_be_taken_up_does_not_end_the_following(store: WeightStore) -> None:
    engine, versions = InMemoryEngine(), asyncio.Queue[int]()
    host = HostedEngine(engine, policy(store, follow=True), versions.put_nowait)
    publish(store, 1)
    latest = Path(store.root) / "LATEST"
    latest.write_text("not a number")
    tried = asyncio.Event()
    monitored = host._store.latest  # type: ignore[union-attr]
    loop = asyncio.get_running_loop()

    def looked() -> int | None:
        loop.call_soon_threadsafe(tried.set)
        return monitored()

    host._store.latest = looked  # type: ignore[union-attr,method-assign]
    host._following = asyncio.create_task(host._follow(host._store))  # type: ignore[arg-type]
    await asyncio.wait_for(tried.wait(), 30)
    latest.write_text("1")
    assert await asyncio.wait_for(versions.get(), 30) == 1
    await host.close()


async def test_without_follow_a_version_waits_for_a_request_that_asks_for_it(store: WeightStore) -> None:
    engine = InMemoryEngine()
    host = HostedEngine(engine, policy(store))
    await host.start()
    publish(store, 1)
    assert host._following is None
    assert await host.ensure_version(1, 30.0) == 1
    await host.close()


async def test_a_broken_engine_ends_its_process_after_it_was_closed(
    store: WeightStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosted, "RETIRE_AFTER_S", 0.0)
    ended = asyncio.get_running_loop().create_future()
    engine = InMemoryEngine()
    host = HostedEngine(engine, policy(store), end_process=ended.set_result)
    await host.start()
    engine.breaker.trip("its device failed")
    assert await ended == 1
    assert engine.closed
