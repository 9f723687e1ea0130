"""What OpenAI's routes in a replica answer, brought to the client: under a deadline, with one form of failure."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import orjson
from fastapi.responses import Response, StreamingResponse

from deployments.client.handle import failure_of
from deployments.errors import PolicyError, kind_of_status
from deployments.protocol.exchange import HttpCall, HttpHead, HttpPiece
from deployments.protocol.generate import GenerateFailure
from deployments.transports.http.answers import WEIGHT_VERSION_HEADER, failure_answer, failure_event

SHOWN_HEADERS = ("content-type", "x-request-id")
LONGEST_MESSAGE = 2000


async def forwarded(call: HttpCall, send: Callable[[HttpCall], Any]) -> Response:
    """One exchange. `send(call)` streams HttpPieces and has `.cancel()` (a streaming call through a Serve handle).

    A failure before the first byte is a JSON answer with its status (raised as PolicyError, or vLLM's own in our form);
    in the middle of a stream it is one more event with the same body. An answer that is no stream is held back until
    it is whole. Whoever stops waiting (client, deadline) cancels the call.
    """
    pieces = _Pieces(call, send(call))
    try:
        head = await pieces.head()
        version = {WEIGHT_VERSION_HEADER: str(head.weight_version)}
        shown = {name: value for name, value in head.headers if name.lower() in SHOWN_HEADERS} | version
        if shown.get("content-type", "").startswith("text/event-stream") and head.status < 400:
            return StreamingResponse(_events(pieces), status_code=head.status, headers=shown)
        body = b"".join([piece async for piece in pieces.body()])
    except BaseException:
        pieces.cancel()
        raise
    if head.status >= 400:
        return failure_answer(PolicyError(kind_of_status(head.status), _message(body)), call.request_id, version)
    return Response(body, status_code=head.status, headers=shown)


async def _events(pieces: _Pieces) -> AsyncIterator[bytes]:
    try:
        async for piece in pieces.body():
            yield piece
    except Exception as error:
        pieces.cancel()
        yield failure_event(error, pieces.call.request_id)
    except BaseException:  # the client left
        pieces.cancel()
        raise


class _Pieces:
    """The pieces of one call, each waited for until the call's deadline. Raises PolicyError, and Ray's errors."""

    def __init__(self, call: HttpCall, stream: Any) -> None:
        self.call = call
        self._stream = stream
        self._pieces = aiter(stream)

    def cancel(self) -> None:
        self._stream.cancel()

    async def head(self) -> HttpHead:
        piece = await self._next()
        if not isinstance(piece, HttpHead):
            raise PolicyError("engine_failed", "the replica ended its answer before it began: try again")
        return piece

    async def body(self) -> AsyncIterator[bytes]:
        while (piece := await self._next()) is not None:
            if isinstance(piece, bytes):
                yield piece

    async def _next(self) -> HttpPiece | None:
        try:
            async with asyncio.timeout(max(0.0, self.call.remaining_s(time.time()))):
                piece: HttpPiece = await anext(self._pieces)
        except StopAsyncIteration:
            return None
        except TimeoutError as error:
            raise PolicyError("deadline_exceeded", "the answer was not complete within the deadline") from error
        if isinstance(piece, GenerateFailure):
            raise failure_of(piece)
        return piece


def _message(body: bytes) -> str:
    """The message out of vLLM's error body, {"error": {"message"}} or FastAPI's {"detail"}."""
    try:
        payload = orjson.loads(body)
    except orjson.JSONDecodeError:
        return body.decode("utf-8", "replace")[:LONGEST_MESSAGE] or "refused without a reason"
    error = payload.get("error") if isinstance(payload, dict) else None
    message = error.get("message") if isinstance(error, dict) else error
    if message is None and isinstance(payload, dict):
        message = payload.get("message") or payload.get("detail")
    return str(message or payload)[:LONGEST_MESSAGE]
