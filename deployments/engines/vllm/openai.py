"""vLLM's own OpenAI routes around our engine, called in process: every parameter, streaming, tools and images."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, cast

from deployments.engines.base import AsgiApp

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM


async def openai_application(llm: AsyncLLM, model: str, served_name: str) -> AsgiApp:
    """vLLM's FastAPI application around a running engine. `served_name`: what clients put into `model`."""
    from vllm.entrypoints.launchers.api_server.app_state import init_app_state
    from vllm.entrypoints.launchers.app import build_app
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    arguments = make_arg_parser(FlexibleArgumentParser()).parse_args(
        ["--model", model, "--served-model-name", served_name, "--disable-fastapi-docs"]
    )
    tasks = await llm.get_supported_tasks()
    app = build_app(arguments, tasks, llm.model_config)
    await init_app_state(llm, app.state, arguments, tasks)
    return cast(AsgiApp, app)


class OpenAIRoutes:
    """An OpenAI application without a server. `call` is one HTTP exchange."""

    def __init__(self, app: AsgiApp) -> None:
        self._app = app

    async def call(
        self, method: str, path: str, query: str, headers: list[tuple[str, str]], body: bytes
    ) -> AsyncIterator[dict[str, Any] | bytes]:
        """First `{"status", "headers"}`, then the body's pieces as they come."""
        pieces: asyncio.Queue[dict[str, Any] | bytes | BaseException | None] = asyncio.Queue()
        sent = False

        async def receive() -> dict[str, Any]:
            nonlocal sent
            if not sent:
                sent = True
                return {"type": "http.request", "body": body, "more_body": False}
            await asyncio.Event().wait()  # the client's disconnect arrives as a cancelled task
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                shown = [(k.decode("latin-1"), v.decode("latin-1")) for k, v in message.get("headers", [])]
                pieces.put_nowait({"status": message["status"], "headers": shown})
            elif message["type"] == "http.response.body" and message.get("body"):
                pieces.put_nowait(message["body"])

        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode("latin-1"),
            "root_path": "",
            "headers": [(k.lower().encode("latin-1"), v.encode("latin-1")) for k, v in headers],
            "client": ("127.0.0.1", 0),
            "server": ("127.0.0.1", 0),
            "state": {},
        }

        async def run() -> None:
            try:
                await self._app(scope, receive, send)
                pieces.put_nowait(None)
            except Exception as error:
                pieces.put_nowait(error)

        task = asyncio.create_task(run())
        try:
            while (piece := await pieces.get()) is not None:
                if isinstance(piece, BaseException):
                    raise piece
                yield piece
        finally:
            task.cancel()
