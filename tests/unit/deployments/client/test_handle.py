"""The token path through a Serve handle: absolute deadlines, failures by kind, and calls that are taken back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from deployments.client.handle import ServeGenerate
from deployments.errors import PolicyError
from deployments.protocol.generate import GenerateFailure, GenerateRequest, GenerateResult


class Handle:
    """A Serve handle whose replica answers each request by `answer`, or holds it for ever where that gives None."""

    def __init__(self, answer: Callable[[GenerateRequest], Any]) -> None:
        self._answer = answer
        self.received: list[GenerateRequest] = []
        self.arrived = asyncio.Event()
        self.abandoned: list[str] = []
        self.told = asyncio.Event()
        self.sessions: list[tuple[str, str]] = []  # (session of the call, session of the episode)

    def options(self, session_id: str, **_: Any) -> Any:
        def remote(requests: Sequence[GenerateRequest]) -> Any:
            self.sessions += [(session_id, str(request.session_id)) for request in requests]
            return self._stream(requests)

        return SimpleNamespace(remote=remote)

    async def _stream(self, requests: Sequence[GenerateRequest]) -> AsyncGenerator[Any]:
        self.received += requests
        self.arrived.set()
        for place, request in enumerate(requests):
            answer = self._answer(request)
            if isinstance(answer, Exception):
                raise answer
            if answer is not None:
                yield [(place, answer)]
        await asyncio.Event().wait()

    def broadcast(self, method: str, ids: list[str]) -> Any:
        assert method == "abandon"
        self.abandoned += ids
        self.told.set()

        async def results_async(return_exceptions: bool) -> list[Any]:
            return []

        return SimpleNamespace(results_async=results_async)


def result(request: GenerateRequest) -> GenerateResult:
    return GenerateResult(request.request_id, [1], [0.0], 0, "stop")


class TooLong(Exception):  # as grpc.aio.AioRpcError
    def code(self) -> Any:
        return SimpleNamespace(name="RESOURCE_EXHAUSTED")


async def test_a_request_carries_the_wall_time_after_which_nobody_waits() -> None:
    handle = Handle(result)
    call = ServeGenerate(handle, clock=lambda: 1000.0)
    await call(GenerateRequest("a", [1], deadline_s=60.0))
    await call(GenerateRequest("b", [1], deadline_s=60.0, deadline_unix_s=1010.0))
    assert [request.deadline_unix_s for request in handle.received] == [1060.0, 1010.0]


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (GenerateFailure("r", "stale_weights", "no version 9"), "stale_weights"),
        (TooLong("message larger than max"), "too_large"),
        (ConnectionError("gone"), "unavailable"),
    ],
)
async def test_what_went_wrong_arrives_as_its_kind(answer: Any, kind: str) -> None:
    with pytest.raises(PolicyError) as failed:
        await ServeGenerate(Handle(lambda _: answer))(GenerateRequest("r", [1]))
    assert (failed.value.kind, failed.value.request_id) == (kind, "r")


async def test_a_cancelled_request_is_taken_out_of_its_call() -> None:
    handle = Handle(lambda request: result(request) if request.request_id == "never" else None)
    call = ServeGenerate(handle, window_s=0.0, max_batch=2)
    leaver, stayer = (asyncio.create_task(call(GenerateRequest(name, [1]))) for name in ("leaver", "stayer"))
    async with asyncio.timeout(10):
        await handle.arrived.wait()
        leaver.cancel()
        await handle.told.wait()
    assert handle.abandoned == ["leaver"]
    assert not stayer.done()
    stayer.cancel()
    await asyncio.gather(leaver, stayer, return_exceptions=True)


async def test_a_large_request_does_not_travel_with_others() -> None:
    handle = Handle(result)
    calls: list[int] = []
    inner = handle._stream

    def counted(requests: Sequence[GenerateRequest]) -> Any:
        calls.append(len(requests))
        return inner(requests)

    handle._stream = counted  # type: ignore[method-assign]
    call = ServeGenerate(handle, window_s=0.05)
    await asyncio.gather(*(call(GenerateRequest(name, [7] * size)) for name, size in (("a", 1), ("b", 300_000))))
    assert calls == [1, 1]


async def test_requests_of_an_episode_go_to_the_same_bucket() -> None:
    handle = Handle(result)
    call = ServeGenerate(handle, buckets=8)
    for index in range(12):
        await call(GenerateRequest(f"r{index}", [1], session_id=f"episode-{index % 3}"))
    assert len(set(handle.sessions)) == 3
