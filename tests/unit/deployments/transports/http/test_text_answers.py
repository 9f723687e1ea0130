"""Text answers while they come: what is ready is written at once, and who leaves is forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from fastapi.responses import StreamingResponse

from deployments.client.batcher import Batcher
from deployments.errors import PolicyError
from deployments.protocol.completion import Completion, CompletionPart, CompletionRequest
from deployments.protocol.generate import GenerateFailure, GeneratePiece
from deployments.transports.http.text_answers import Asked, ChatFormat, text_response

END = Completion("r1", "so it is", "length", 3, 2, weight_version=7)


class Replica:
    """Sends what is put into `parts`, until it is left."""

    def __init__(self) -> None:
        self.parts: asyncio.Queue[list[CompletionPart]] = asyncio.Queue()
        self.left = False

    def send(self, requests: list[CompletionRequest]) -> Replica:
        return self

    async def __aiter__(self) -> AsyncIterator[list[tuple[int, CompletionPart]]]:
        while True:
            yield [(0, part) for part in await self.parts.get()]

    def cancel(self) -> None:
        self.left = True


async def stream(replica: Replica) -> AsyncIterator[bytes]:
    batcher: Batcher[CompletionRequest, Any] = Batcher(
        replica.send, window_s=0.0, max_batch=1, is_last=lambda part: not isinstance(part, GeneratePiece)
    )
    request = CompletionRequest("r1-1", "You", stream=True)
    response = await text_response(batcher, Asked(request, ChatFormat(), "policy", "r1"))
    return cast(AsyncIterator[bytes], cast(StreamingResponse, response).body_iterator)


async def test_the_parts_that_are_ready_at_the_same_time_are_one_write() -> None:
    replica = Replica()
    replica.parts.put_nowait([GeneratePiece("so", 7), GeneratePiece(" it", 7)])
    events = await stream(replica)
    first = await anext(events)
    assert first.count(b"data: ") == 3, "the role and two pieces"
    replica.parts.put_nowait([GeneratePiece(" is", 7), END])
    rest = [written async for written in events]
    assert len(rest) == 1
    assert rest[0].endswith(b"data: [DONE]\n\n")


async def test_whoever_leaves_a_stream_is_no_longer_answered() -> None:
    replica = Replica()
    replica.parts.put_nowait([GeneratePiece("so", 7)])
    events = await stream(replica)
    await anext(events)
    await events.aclose()  # type: ignore[attr-defined]
    for _ in range(10):
        await asyncio.sleep(0)
    assert replica.left


async def test_a_failure_before_the_first_part_has_a_status() -> None:
    replica = Replica()
    replica.parts.put_nowait([GenerateFailure("r1", "overloaded", "wait", retry_after_s=3.0)])
    with pytest.raises(PolicyError) as raised:
        await stream(replica)
    assert (raised.value.kind, raised.value.retry_after_s) == ("overloaded", 3.0)
