"""vLLM's answers on their way to a client: deadline, one form of failure, and nothing that is cut off silently."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import orjson
import pytest
from fastapi.responses import Response, StreamingResponse

from deployments.errors import PolicyError
from deployments.protocol.exchange import HttpCall, HttpHead, HttpPiece
from deployments.protocol.generate import GenerateFailure
from deployments.transports.http.forward import forwarded

JSON = HttpHead(200, (("content-type", "application/json"),), 5)
EVENTS = HttpHead(200, (("content-type", "text/event-stream; charset=utf-8"),), 5)
BROKEN = GenerateFailure("r1", "engine_failed", "the engine died")


class Pieces:
    """A streaming call: what it yields, an exception that it raises there, or (at the end) nothing for ever."""

    def __init__(self, *pieces: HttpPiece | Exception, hangs: bool = False) -> None:
        self._pieces = list(pieces)
        self._hangs = hangs
        self.cancelled = False

    def __aiter__(self) -> Pieces:
        return self

    async def __anext__(self) -> HttpPiece:
        if not self._pieces:
            if self._hangs:
                await asyncio.Event().wait()
            raise StopAsyncIteration
        piece = self._pieces.pop(0)
        if isinstance(piece, Exception):
            raise piece
        return piece

    def cancel(self) -> None:
        self.cancelled = True


def call(deadline_s: float = 60.0) -> HttpCall:
    return HttpCall("r1", "POST", "/v1/chat/completions", "", (), b"{}", time.time() + deadline_s)


async def answer(pieces: Pieces, deadline_s: float = 60.0) -> Response:
    return await forwarded(call(deadline_s), lambda _: pieces)


async def events(response: Response) -> list[bytes]:
    assert isinstance(response, StreamingResponse)
    return [bytes(event) async for event in response.body_iterator]  # type: ignore[arg-type]


async def test_a_whole_answer_carries_the_version_of_the_weights() -> None:
    response = await answer(Pieces(JSON, b'{"a":', b" 1}"))
    assert (response.status_code, response.body) == (200, b'{"a": 1}')
    assert response.headers["x-weight-version"] == "5"


async def test_vllms_refusal_gets_our_body_and_keeps_its_message() -> None:
    head = HttpHead(400, (("content-type", "application/json"),), 5)
    response = await answer(Pieces(head, b'{"error": {"message": "max_tokens is too large", "code": 400}}'))
    body = orjson.loads(response.body)
    assert (response.status_code, body["kind"]) == (400, "invalid_request")
    assert body["message"] == body["error"]["message"] == "max_tokens is too large"
    assert response.headers["x-weight-version"] == "5"


async def test_an_answer_that_is_torn_in_the_middle_is_a_failure_from_its_first_byte() -> None:
    with pytest.raises(PolicyError, match="the engine died"):
        await answer(Pieces(JSON, b'{"half of', BROKEN))


async def test_a_stream_that_fails_before_its_first_byte_is_a_failure() -> None:
    with pytest.raises(PolicyError, match="the engine died"):
        await answer(Pieces(BROKEN))


@pytest.mark.parametrize("failure", [BROKEN, ConnectionError("the replica died")])
async def test_a_stream_that_fails_in_the_middle_ends_in_an_error_event(failure: Any) -> None:
    pieces = Pieces(EVENTS, b"data: 1\n\n", failure)
    first, last = await events(await answer(pieces))
    assert first == b"data: 1\n\n"
    body = orjson.loads(last.removeprefix(b"data: "))
    assert body["request_id"] == "r1"
    assert body["error"]["type"] in ("engine_failed", "internal")
    assert pieces.cancelled


async def test_a_refusal_of_a_replica_keeps_when_to_come_back() -> None:
    refusal = GenerateFailure("r1", "overloaded", "full", 7.0, (("x-ratelimit-limit-requests", "1"),))
    with pytest.raises(PolicyError) as refused:
        await answer(Pieces(refusal))
    assert refused.value.headers() == {"x-ratelimit-limit-requests": "1", "Retry-After": "7"}


async def test_the_deadline_holds_for_the_whole_answer_and_cancels_the_call() -> None:
    pieces = Pieces(JSON, b"{", hangs=True)
    with pytest.raises(PolicyError) as refused:
        await answer(pieces, deadline_s=0.01)
    assert refused.value.kind == "deadline_exceeded"
    assert pieces.cancelled


async def test_the_deadline_holds_for_a_stream() -> None:
    pieces = Pieces(EVENTS, b"data: 1\n\n", hangs=True)
    last = (await events(await answer(pieces, deadline_s=0.2)))[-1]
    assert b"deadline_exceeded" in last
    assert pieces.cancelled


async def test_a_client_that_leaves_before_the_answer_cancels_the_call() -> None:
    pieces = Pieces(hangs=True)
    task = asyncio.create_task(answer(pieces))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert pieces.cancelled


async def test_a_client_that_leaves_a_stream_cancels_the_call() -> None:
    pieces = Pieces(EVENTS, b"data: 1\n\n", hangs=True)
    task = asyncio.create_task(events(await answer(pieces)))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert pieces.cancelled


async def test_a_refusal_keeps_what_it_says_of_when_to_try_again() -> None:
    with pytest.raises(PolicyError) as refused:
        await answer(Pieces(GenerateFailure("r1", "overloaded", "a queue", retry_after_s=7.5)))
    assert (refused.value.kind, refused.value.retry_after_s) == ("overloaded", 7.5)
