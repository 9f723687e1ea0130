"""One call per request through a Serve handle: as a robot policy is asked for a chunk."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from deployments.client.unary import Unary
from deployments.errors import PolicyError
from deployments.protocol.act import ChunkRequest, ChunkResult
from deployments.protocol.generate import GenerateFailure


class Response:
    """A unary call through a handle: awaitable, with `.cancel()`."""

    def __init__(self, answer: Any, cancelled: asyncio.Event) -> None:
        self._answer, self._cancelled = answer, cancelled

    def __await__(self) -> Any:
        return self._answered().__await__()

    async def _answered(self) -> Any:
        if self._answer is None:
            await asyncio.Event().wait()
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer

    def cancel(self) -> None:
        self._cancelled.set()


class Handle:
    """A Serve handle whose replicas give these answers, the last one for ever, or none at all for None."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.received: list[ChunkRequest] = []
        self.arrived, self.cancelled, self.told = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.abandoned: list[str] = []

    def options(self, method_name: str) -> Any:
        assert method_name == "act"
        return SimpleNamespace(remote=self._act)

    def _act(self, request: ChunkRequest) -> Response:
        self.received.append(request)
        self.arrived.set()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return Response(answer, self.cancelled)

    def broadcast(self, method: str, ids: list[str]) -> Any:
        assert method == "abandon"
        self.abandoned += ids
        self.told.set()

        async def results_async(return_exceptions: bool) -> list[Any]:
            return []

        return SimpleNamespace(results_async=results_async)


def request(deadline_s: float = 60.0) -> ChunkRequest:
    images, mask = np.zeros((1, 2, 2, 3), np.uint8), np.ones(1, np.bool_)
    return ChunkRequest("r", images, mask, np.zeros(3, np.float32), "reach", deadline_s=deadline_s)


def chunks(handle: Handle) -> Unary[ChunkRequest, ChunkResult]:
    return Unary(handle, "act")


async def test_an_answer_comes_back_as_it_is() -> None:
    chunk = ChunkResult("r", np.ones((4, 2), np.float32), 7)
    assert await chunks(Handle(chunk))(request()) is chunk


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (GenerateFailure("r", "stale_weights", "no version 9"), "stale_weights"),
        (ConnectionError("gone"), "unavailable"),
    ],
)
async def test_what_went_wrong_arrives_as_its_kind(answer: Any, kind: str) -> None:
    with pytest.raises(PolicyError) as failed:
        await chunks(Handle(answer))(request())
    assert (failed.value.kind, failed.value.request_id) == (kind, "r")


async def test_a_question_past_its_deadline_reaches_no_replica() -> None:
    handle = Handle(None)
    with pytest.raises(PolicyError, match="deadline_exceeded"):
        await chunks(handle)(request(deadline_s=0.0))
    assert handle.received == []


async def test_a_replica_that_is_silent_is_not_waited_for_beyond_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deployments.client.unary.MARGIN_S", 0.0)
    handle = Handle(None)
    with pytest.raises(PolicyError, match="deadline_exceeded"):
        await chunks(handle)(request(deadline_s=0.01))
    async with asyncio.timeout(10):
        await handle.cancelled.wait()
        await handle.told.wait()
    assert handle.abandoned == ["r"]


async def test_a_caller_that_leaves_takes_its_request_out_of_the_engine() -> None:
    handle = Handle(None)
    asking = asyncio.create_task(chunks(handle)(request()))
    async with asyncio.timeout(10):
        await handle.arrived.wait()
        asking.cancel()
        await handle.cancelled.wait()
        await handle.told.wait()
    await asyncio.gather(asking, return_exceptions=True)
    assert handle.abandoned == ["r"]


async def test_a_deployment_that_cannot_be_told_is_only_cancelled() -> None:
    handle = Handle(None)
    asking = asyncio.create_task(Unary[ChunkRequest, ChunkResult](handle, "act", abandons=False)(request()))
    async with asyncio.timeout(10):
        await handle.arrived.wait()
        asking.cancel()
        await handle.cancelled.wait()
    await asyncio.gather(asking, return_exceptions=True)
    assert handle.abandoned == []


async def test_a_request_that_died_with_its_replica_is_answered_by_another() -> None:
    chunk = ChunkResult("r", np.ones((4, 2), np.float32), 7)
    handle = Handle(ConnectionError("the replica is gone"), chunk)
    assert await chunks(handle)(request()) is chunk
    assert [asked.request_id for asked in handle.received] == ["r", "r"]


async def test_what_a_replica_answers_is_not_asked_again() -> None:
    """A provider's API that is away has been tried often enough, by the replica."""
    handle = Handle(GenerateFailure("r", "unavailable", "the API is away"))
    with pytest.raises(PolicyError, match="the API is away"):
        await chunks(handle)(request())
    assert len(handle.received) == 1
