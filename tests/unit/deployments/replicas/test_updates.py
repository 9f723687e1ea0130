from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import torch

from deployments.errors import PolicyError
from deployments.replicas.updates import WeightUpdates
from deployments.weights.store import WeightStore
from tests.unit.deployments.engines.in_memory import InMemoryEngine


@pytest.fixture
def store(tmp_path: Path) -> WeightStore:
    return WeightStore(str(tmp_path / "store"))


def publish(store: WeightStore, version: int) -> None:
    store.publish(version, [("w", torch.full((2,), float(version)))])


def updates(engine: InMemoryEngine, store: WeightStore | None, tmp_path: Path) -> WeightUpdates:
    return WeightUpdates(engine, store, tmp_path / "cache", "policy")


async def test_an_update_is_finished_although_the_caller_who_asked_for_it_left(
    store: WeightStore, tmp_path: Path
) -> None:
    """A cancelled request left vLLM's update open: every later one failed, and health said healthy."""
    engine = InMemoryEngine()
    engine.updating.clear()
    wanted = updates(engine, store, tmp_path)
    publish(store, 1)
    first = asyncio.create_task(wanted.reach(1, deadline_s=60.0))
    await engine.update_began.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    second = asyncio.create_task(wanted.reach(1, deadline_s=60.0))
    engine.updating.set()
    assert await second == 1


async def test_a_caller_waits_no_longer_than_its_own_deadline_and_leaves_the_update_alone(
    store: WeightStore, tmp_path: Path
) -> None:
    engine = InMemoryEngine()
    engine.updating.clear()
    wanted = updates(engine, store, tmp_path)
    publish(store, 1)
    patient = asyncio.create_task(wanted.reach(1, deadline_s=60.0))
    await engine.update_began.wait()
    with pytest.raises(PolicyError, match=r"no weight version >= 1 within 0\.001 s") as late:
        await wanted.reach(1, deadline_s=0.001)
    assert late.value.kind == "stale_weights"
    engine.updating.set()
    assert await patient == 1


async def test_an_update_that_breaks_half_way_is_told_to_all_who_wait_for_it(
    store: WeightStore, tmp_path: Path
) -> None:
    engine = InMemoryEngine()
    engine.breaks = "parts of two versions"
    wanted = updates(engine, store, tmp_path)
    publish(store, 1)
    results = await asyncio.gather(*(wanted.reach(1, 60.0) for _ in range(3)), return_exceptions=True)
    assert [error.kind for error in results if isinstance(error, PolicyError)] == ["engine_failed"] * 3


async def test_a_version_that_never_comes_keeps_nobody_from_one_that_is_there(
    store: WeightStore, tmp_path: Path
) -> None:
    engine = InMemoryEngine()
    wanted = updates(engine, store, tmp_path)
    never = asyncio.create_task(wanted.reach(10_000, deadline_s=60.0))
    publish(store, 2)
    assert await wanted.reach(2, deadline_s=60.0) == 2
    assert not never.done()
    never.cancel()


async def test_a_version_that_is_published_while_a_caller_waits_arrives(store: WeightStore, tmp_path: Path) -> None:
    engine = InMemoryEngine()
    wanted = updates(engine, store, tmp_path)
    waiting = asyncio.create_task(wanted.reach(1, deadline_s=60.0))
    await asyncio.to_thread(publish, store, 1)
    assert await waiting == 1


async def test_a_policy_without_a_store_says_so(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="'policy' has no weights_root"):
        await updates(InMemoryEngine(), None, tmp_path).reach(1, deadline_s=60.0)


async def test_any_failure_of_the_store_is_told_to_who_waits(store: WeightStore, tmp_path: Path) -> None:
    publish(store, 1)
    (tmp_path / "store" / "LATEST").write_text("not a number")
    with pytest.raises(PolicyError, match="holds no number") as failed:
        await updates(InMemoryEngine(), store, tmp_path).reach(1, deadline_s=60.0)
    assert failed.value.kind == "stale_weights"
