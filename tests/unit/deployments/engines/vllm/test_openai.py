"""One exchange with an ASGI application: pieces as they come, and a client that leaves is a disconnect."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

from deployments.engines.vllm.openai import OpenAIRoutes
from deployments.protocol.exchange import HttpCall, HttpHead
from deployments.protocol.generate import GenerateFailure


def call(path: str) -> HttpCall:
    return HttpCall("r", "POST", path, "", (("content-type", "application/json"),), b"{}", deadline_unix_s=1e12)


def with_disconnect(handler: Callable[[], Awaitable[Any]], request: Request) -> Awaitable[Any]:
    """As vLLM's `with_cancellation`: the handler ends when the client's disconnect arrives, and by nothing else."""

    async def run() -> Any:
        work = asyncio.ensure_future(handler())

        async def disconnected() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass

        left = asyncio.ensure_future(disconnected())
        await asyncio.wait([work, left], return_when=asyncio.FIRST_COMPLETED)
        left.cancel()
        if not work.done():
            work.cancel()
            return None
        return work.result()

    return run()


async def test_a_handler_ends_when_its_caller_leaves_before_the_answer() -> None:
    app, begun, ended = FastAPI(), asyncio.Event(), asyncio.Event()

    async def generation() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    @app.post("/chat")
    async def chat(request: Request) -> Any:
        await request.body()
        return await with_disconnect(generation, request)

    pieces = OpenAIRoutes(app).call(call("/chat"), 3)
    waiting = asyncio.ensure_future(anext(pieces))
    await begun.wait()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    async with asyncio.timeout(10):
        await ended.wait()


async def test_a_stream_ends_when_its_caller_leaves_in_the_middle() -> None:
    app, ended = FastAPI(), asyncio.Event()

    async def tokens() -> AsyncIterator[bytes]:
        try:
            yield b"data: 1\n\n"
            await asyncio.Event().wait()
        finally:
            ended.set()

    @app.post("/chat")
    async def chat() -> StreamingResponse:
        return StreamingResponse(tokens(), media_type="text/event-stream")

    pieces = OpenAIRoutes(app).call(call("/chat"), 3)
    head = await anext(pieces)
    assert isinstance(head, HttpHead)
    assert (head.status, head.weight_version) == (200, 3)
    assert await anext(pieces) == b"data: 1\n\n"
    await pieces.aclose()
    async with asyncio.timeout(10):
        await ended.wait()


async def test_an_answer_that_breaks_off_ends_in_a_failure_and_not_in_an_exception() -> None:
    app = FastAPI()

    async def tokens() -> AsyncIterator[bytes]:
        yield b"data: 1\n\n"
        raise RuntimeError("the engine died")

    @app.post("/chat")
    async def chat() -> StreamingResponse:
        return StreamingResponse(tokens(), media_type="text/event-stream")

    pieces = [piece async for piece in OpenAIRoutes(app).call(call("/chat"), 3)]
    assert isinstance(pieces[-1], GenerateFailure)
    assert pieces[-1].kind == "engine_failed"


async def test_an_exception_after_a_whole_error_answer_adds_nothing_to_it() -> None:
    app = FastAPI()  # answers an unforeseen exception with 500, and raises it again

    @app.post("/chat")
    async def chat() -> None:
        raise RuntimeError("a defect")

    pieces = [piece async for piece in OpenAIRoutes(app).call(call("/chat"), 3)]
    assert isinstance(pieces[0], HttpHead)
    assert pieces[0].status == 500
    assert not any(isinstance(piece, GenerateFailure) for piece in pieces)
