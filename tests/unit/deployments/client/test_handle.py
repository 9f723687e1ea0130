"""`generate` through a Serve handle; here a handle that answers in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from deployments.client.handle import ServeGenerate
from deployments.errors import PolicyError
from deployments.protocol.generate import GenerateFailure, GenerateRequest, GenerateResult

Answer = GenerateResult | GenerateFailure
Replica = Callable[[Sequence[GenerateRequest]], list[Answer]]


class Handle:
    """What ServeGenerate needs of Serve's handle; keeps which session each batch went to."""

    def __init__(
        self, replica: Replica, session: str = "", calls: list[tuple[str, list[GenerateRequest]]] | None = None
    ):
        self.replica, self.session, self.calls = replica, session, [] if calls is None else calls

    def options(self, session_id: str, **_: Any) -> Handle:
        return Handle(self.replica, session_id, self.calls)

    @property
    def remote(self) -> Callable[[list[GenerateRequest]], AsyncIterator[list[tuple[int, Answer]]]]:
        async def stream(requests: list[GenerateRequest]) -> AsyncIterator[list[tuple[int, Answer]]]:
            self.calls.append((self.session, requests))
            yield list(enumerate(self.replica(requests)))

        return stream


def echo(requests: Sequence[GenerateRequest]) -> list[Answer]:
    return [GenerateResult(request.request_id, list(request.token_ids), [-0.5], 3, "stop") for request in requests]


async def test_a_request_is_answered_by_the_replica() -> None:
    generate = ServeGenerate(Handle(echo))
    answer = await generate(GenerateRequest("r", [1, 2]))
    assert (answer.request_id, answer.token_ids, answer.weight_version) == ("r", [1, 2], 3)


async def test_requests_of_a_session_go_to_the_same_bucket() -> None:
    handle = Handle(echo)
    generate = ServeGenerate(handle, buckets=8)
    for index in range(12):
        await generate(GenerateRequest(f"r{index}", [1], session_id=f"episode-{index % 3}"))
    buckets = {
        session: {requests[0].session_id for name, requests in handle.calls if name == session}
        for session, _ in handle.calls
    }
    assert sum(len(sessions) for sessions in buckets.values()) == 3


async def test_the_deadline_travels_as_wall_time() -> None:
    handle = Handle(echo)
    generate = ServeGenerate(handle, clock=lambda: 1000.0)
    await generate(GenerateRequest("r", [1], deadline_s=5.0))
    assert handle.calls[0][1][0].deadline_unix_s == 1005.0


async def test_a_failure_keeps_its_kind() -> None:
    def refuse(requests: Sequence[GenerateRequest]) -> list[Answer]:
        return [GenerateFailure(request.request_id, "stale_weights", "version 7") for request in requests]

    with pytest.raises(PolicyError, match="version 7") as caught:
        await ServeGenerate(Handle(refuse))(GenerateRequest("r", [1]))
    assert (caught.value.kind, caught.value.request_id) == ("stale_weights", "r")


async def test_a_lost_replica_is_unavailable_and_may_be_asked_again() -> None:
    def die(requests: Sequence[GenerateRequest]) -> list[Answer]:
        raise RuntimeError("the actor died\nand its whole story")

    with pytest.raises(PolicyError) as caught:
        await ServeGenerate(Handle(die))(GenerateRequest("r", [1]))
    assert (caught.value.kind, caught.value.retryable) == ("unavailable", True)
    assert "RuntimeError: the actor died" in str(caught.value)
    assert "story" not in str(caught.value)
