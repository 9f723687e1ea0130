from __future__ import annotations

import asyncio
from typing import Any

import pytest

from deployments.chunks.description import ChunkDescription
from deployments.engines.base import DeviceStatus, EngineUnhealthy
from deployments.engines.guarded import GuardedChunkEngine, GuardedTokenEngine, ProgressWatch
from deployments.errors import TABLE, PolicyError
from deployments.protocol.act import ChunkAnswer, ChunkRequest
from deployments.protocol.generate import GenerateFailure, GenerateRequest, GenerateResult
from tests.unit.deployments.chunks.cases import request as chunk_request
from tests.unit.deployments.engines.in_memory import InMemoryEngine


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def guarded(clock: Clock | None = None) -> tuple[InMemoryEngine, GuardedTokenEngine]:
    engine = InMemoryEngine()
    return engine, GuardedTokenEngine(engine, no_progress_s=60.0, clock=clock or Clock())


async def test_a_request_that_the_engine_swallows_turns_it_unhealthy_and_is_answered_with_a_failure() -> None:
    """One malformed field ended vLLM's input thread: each request hung to its deadline, and health said healthy."""
    clock = Clock()
    engine, guard = guarded(clock)
    engine.answering.clear()
    swallowed = asyncio.create_task(guard.generate([GenerateRequest("r", [1])]))
    await engine.arrived.wait()
    await guard.health()
    clock.now += 59.0
    await guard.health()  # slow is not stuck
    clock.now += 2.0
    with pytest.raises(EngineUnhealthy, match=r"'r'.*no progress for 61 s"):
        await guard.health()
    [answer] = await swallowed
    assert isinstance(answer, GenerateFailure)
    assert answer.kind == "engine_failed"
    assert TABLE[answer.kind].retryable


async def test_an_engine_that_once_stood_still_takes_no_more_requests() -> None:
    engine, guard = guarded()
    engine.breaker.trip("its process died")
    [answer] = await guard.generate([GenerateRequest("r", [1])])
    assert isinstance(answer, GenerateFailure)
    assert "its process died" in answer.message
    assert engine.progress == {}
    with pytest.raises(EngineUnhealthy, match="its process died"):
        await guard.health()


def test_waiting_behind_others_is_not_standing_still() -> None:
    clock = Clock()
    watch = ProgressWatch(clock)
    for tokens in range(100):  # "b" waits in the queue for 1,000 s while "a" is decoded
        assert watch.stalled_s({"a": tokens, "b": 0}) == 0.0
        clock.now += 10.0
    assert watch.stalled_s({"b": 0}) == 0.0, "its own time begins when it is the oldest"
    clock.now += 10.0
    assert watch.stalled_s({"b": 0}) == 10.0


def test_a_request_that_stands_still_is_seen_although_others_overtake_it() -> None:
    clock = Clock()
    watch = ProgressWatch(clock)
    watch.stalled_s({"lost": 3})
    for tokens in range(5):
        clock.now += 10.0
        stalled_s = watch.stalled_s({"lost": 3, f"later-{tokens}": tokens})
    assert stalled_s == 50.0


def test_an_idle_engine_is_not_standing_still() -> None:
    clock = Clock()
    watch = ProgressWatch(clock)
    watch.stalled_s({})
    clock.now += 3600.0
    assert watch.stalled_s({"first after an hour": 0}) == 0.0


async def test_what_runs_through_the_openai_application_ends_when_the_engine_breaks() -> None:
    engine, guard = guarded()
    engine.answering.clear()
    app = await guard.openai_application()
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    exchange = asyncio.create_task(app({}, asyncio.Event().wait, send))
    await engine.arrived.wait()
    engine.breaker.trip("two versions at once")
    with pytest.raises(PolicyError, match="two versions at once"):
        await exchange
    assert [message["type"] for message in sent] == ["http.response.start"]


async def test_a_time_out_of_the_engines_own_stays_one() -> None:
    engine, guard = guarded()
    engine.answering.clear()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(guard.generate([GenerateRequest("r", [1])]), 0.001)
    engine.answering.set()
    [answer] = await guard.generate([GenerateRequest("again", [1])])
    assert isinstance(answer, GenerateResult)


async def test_a_chunk_engine_is_guarded_alike() -> None:
    clock = Clock()
    engine = ChunksInMemory()
    guard = GuardedChunkEngine(engine, no_progress_s=60.0, clock=clock)
    stuck = asyncio.create_task(guard.act(chunk_request("stuck")))
    await engine.arrived.wait()
    await guard.health()
    clock.now += 61.0
    with pytest.raises(EngineUnhealthy, match="'stuck'"):
        await guard.health()
    for answer in (await stuck, await guard.act(chunk_request("later"))):
        assert isinstance(answer, GenerateFailure)
        assert answer.kind == "engine_failed"
    assert engine.progress == {"stuck": 0}


class ChunksInMemory(InMemoryEngine):
    """A ChunkEngine that never answers."""

    async def act(self, request: ChunkRequest) -> ChunkAnswer:
        self.progress[request.request_id] = 0
        self.arrived.set()
        await asyncio.Event().wait()
        raise AssertionError

    @property
    def description(self) -> ChunkDescription:
        raise NotImplementedError

    def device(self) -> DeviceStatus:
        return DeviceStatus("cpu")
