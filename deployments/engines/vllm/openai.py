"""vLLM's own OpenAI routes around our engine, called in process: every parameter, streaming, tools and images."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any, cast

from deployments.engines.base import AsgiApp
from deployments.errors import PolicyError
from deployments.protocol.exchange import HttpCall, HttpHead, HttpPiece
from deployments.protocol.generate import GenerateFailure

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM

logger = logging.getLogger("ray.serve")

LEAVING_LIMIT_S = 5.0  # time that a handler gets to end after its client's disconnect, before it is cancelled


async def openai_application(
    llm: AsyncLLM, model: str, served_name: str, tool_call_parser: str | None = None
) -> AsgiApp:
    """vLLM's FastAPI application around a running engine. `served_name`: what clients put into `model`;
    `tool_call_parser`: one of vLLM's, by name, without which it refuses tools."""
    from vllm.entrypoints.launchers.api_server.app_state import init_app_state
    from vllm.entrypoints.launchers.app import build_app
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    tools = ["--enable-auto-tool-choice", "--tool-call-parser", tool_call_parser] if tool_call_parser else []
    arguments = make_arg_parser(FlexibleArgumentParser()).parse_args(
        ["--model", model, "--served-model-name", served_name, "--disable-fastapi-docs", *tools]
    )
    tasks = await llm.get_supported_tasks()
    app = build_app(arguments, tasks, llm.model_config)
    await init_app_state(llm, app.state, arguments, tasks)
    return cast(AsgiApp, app)


class OpenAIRoutes:
    """An OpenAI application without a server. `call` is one HTTP exchange."""

    def __init__(self, app: AsgiApp) -> None:
        self._app = app
        self._leaving: set[asyncio.Task[None]] = set()

    async def call(self, call: HttpCall, weight_version: int) -> AsyncGenerator[HttpPiece]:
        """First the head, then the body's pieces as they come; a GenerateFailure where the answer breaks off.

        Closing (or cancelling) this generator is the client's disconnect: vLLM then aborts the request in the engine.
        """
        exchange = _Exchange(call, weight_version)
        task = asyncio.create_task(self._run(exchange))
        try:
            while (piece := await exchange.pieces.get()) is not None:
                yield piece
        finally:
            exchange.left.set()
            if not task.done():
                ending = asyncio.create_task(_end(task))
                self._leaving.add(ending)
                ending.add_done_callback(self._leaving.discard)

    async def _run(self, exchange: _Exchange) -> None:
        try:
            await self._app(exchange.scope(), exchange.receive, exchange.send)
        except PolicyError as error:
            exchange.pieces.put_nowait(GenerateFailure(exchange.call.request_id, error.kind, error.message))
        except Exception as error:  # Starlette answers 500 and raises again
            if not exchange.complete:
                logger.error("request %s broke off", exchange.call.request_id, exc_info=error)
                message = "vLLM stopped working on the request; the server's log has the details"
                exchange.pieces.put_nowait(GenerateFailure(exchange.call.request_id, "engine_failed", message))
        finally:
            exchange.pieces.put_nowait(None)


async def _end(task: asyncio.Task[None]) -> None:
    """Waits for a handler whose client left. To cancel it first would not do: vLLM's `with_cancellation` runs the
    generation in a task of its own, which ends by the disconnect only."""
    _, unfinished = await asyncio.wait([task], timeout=LEAVING_LIMIT_S)
    for late in unfinished:
        late.cancel()


class _Exchange:
    """The ASGI side of one HttpCall: `receive` and `send` for the application, `pieces` (None: the end) for us."""

    def __init__(self, call: HttpCall, weight_version: int) -> None:
        self.call = call
        self.pieces: asyncio.Queue[HttpPiece | None] = asyncio.Queue()
        self.left = asyncio.Event()
        self.complete = False
        self._weight_version = weight_version
        self._body_sent = False

    async def receive(self) -> dict[str, Any]:
        if not self._body_sent:
            self._body_sent = True
            return {"type": "http.request", "body": self.call.body, "more_body": False}
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            headers = tuple((k.decode("latin-1"), v.decode("latin-1")) for k, v in message.get("headers", []))
            self.pieces.put_nowait(HttpHead(message["status"], headers, self._weight_version))
        elif message["type"] == "http.response.body":
            if message.get("body"):
                self.pieces.put_nowait(message["body"])
            self.complete = not message.get("more_body", False)

    def scope(self) -> dict[str, Any]:
        call = self.call
        return {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": call.method,
            "scheme": "http",
            "path": call.path,
            "raw_path": call.path.encode(),
            "query_string": call.query.encode("latin-1"),
            "root_path": "",
            "headers": [(k.lower().encode("latin-1"), v.encode("latin-1")) for k, v in call.headers],
            "client": ("127.0.0.1", 0),
            "server": ("127.0.0.1", 0),
            "state": {},
        }
