"""A small server with OpenAI's chat route, on loopback, that answers what a test tells it to."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route


@dataclass(frozen=True)
class Reply:
    """One answer. `waits_for`: it comes only then; of a stream (`events`) only what comes after its
    first text. `breaks_off`: the connection ends there."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    waits_for: asyncio.Event | None = None
    events: tuple[Any, ...] = ()
    breaks_off: bool = False


def said(
    text: str | None, finish_reason: str = "stop", tokens: int = 12, refusal: str | None = None, **reply: Any
) -> Reply:
    message = {"role": "assistant", "content": text} | ({"refusal": refusal} if refusal else {})
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    usage = {"prompt_tokens": tokens - 2, "completion_tokens": 2, "total_tokens": tokens}
    body = {
        "id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage,
    }  # fmt: skip
    return Reply(body=body, **reply)


def streamed(*texts: str, tokens: int = 12, **reply: Any) -> Reply:
    """A stream of these texts, and then what was used."""
    deltas = [{"role": "assistant", "content": ""}, *({"content": text} for text in texts)]
    choices = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    choices.append({"index": 0, "delta": {}, "finish_reason": "stop"})
    shared = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    usage = {"prompt_tokens": tokens - 2, "completion_tokens": 2, "total_tokens": tokens}
    events = [*({**shared, "choices": [choice]} for choice in choices), {**shared, "choices": [], "usage": usage}]
    return Reply(events=tuple(events), **reply)


def failed(status: int, message: str, headers: dict[str, str] | None = None, code: str | None = None) -> Reply:
    return Reply(status, {"error": {"message": message, "type": "x", "code": code}}, headers or {})


class OpenAIServer:
    """`replies`: given one after the other; the last one stays. `bodies`, `keys`: what the requests held."""

    def __init__(self) -> None:
        self.replies: deque[Reply] = deque([said("hello")])
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.arrived = asyncio.Event()
        self.left = asyncio.Event()  # a client went away before its answer
        self.address = ""

    def answers(self, *replies: Reply) -> None:
        self.replies = deque(replies)

    async def chat(self, request: Request) -> Response:
        self.bodies.append(json.loads(await request.body()))
        self.keys.append(request.headers.get("authorization", ""))
        reply = self.replies.popleft() if len(self.replies) > 1 else self.replies[0]
        self.arrived.set()
        if reply.events:
            return StreamingResponse(self._events(reply), media_type="text/event-stream")
        if reply.waits_for is not None:
            await self._wait(request, reply.waits_for)
        return JSONResponse(reply.body, reply.status, reply.headers)

    async def _events(self, reply: Reply) -> AsyncIterator[bytes]:
        for place, event in enumerate(reply.events):
            if place == 2 and reply.breaks_off:
                raise ConnectionError("the provider's server died")
            yield b"data: " + json.dumps(event).encode() + b"\n\n"
            if place == 1 and reply.waits_for is not None:
                await self._wait_in_stream(reply.waits_for)
        yield b"data: [DONE]\n\n"

    async def _wait_in_stream(self, event: asyncio.Event) -> None:
        try:
            await event.wait()
        except asyncio.CancelledError:  # Starlette ends a stream whose client left
            self.left.set()
            raise

    async def _wait(self, request: Request, event: asyncio.Event) -> None:
        waits = asyncio.create_task(event.wait())
        leaves = asyncio.create_task(request.receive())  # the body is read: what comes now is the disconnect
        done, pending = await asyncio.wait({waits, leaves}, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        if leaves in done:
            self.left.set()


@asynccontextmanager
async def openai_server() -> AsyncIterator[OpenAIServer]:
    """The server, listening at a free port."""
    state = OpenAIServer()
    app = Starlette(routes=[Route("/v1/chat/completions", state.chat, methods=["POST"])])
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", lifespan="off"))
    running = asyncio.create_task(server.serve())
    while not server.started:
        if running.done():
            await running
            raise RuntimeError("the server did not start")
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    state.address = f"http://127.0.0.1:{port}/v1"
    try:
        yield state
    finally:
        server.should_exit = True
        server.force_exit = True
        await running
