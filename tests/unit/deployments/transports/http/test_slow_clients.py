"""Over real sockets: what one client sends slowly, or in bulk, keeps nobody else from an answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import httpx
import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import Response

from configs.serving import ServeConfig
from deployments.protocol.act import ActRequest, ActResult
from deployments.transports.http.act import act
from deployments.transports.http.answers import answer_failures
from deployments.transports.policies import ServedPolicies

SERVED = ServedPolicies(ServeConfig.parse({"policies": [{"name": "arm", "model": "m", "act": {"arm": {}}}]}))
BODY = json.dumps({"image": [[[1, 2, 3]]], "instruction": "go"}).encode()


class Policy:
    async def act(self, policy: str | None, request: ActRequest) -> ActResult:
        return ActResult(request.request_id, np.zeros((1, 7), np.float32), weight_version=0)

    async def reset(self, policy: str | None, session_id: str) -> None: ...


@asynccontextmanager
async def served() -> AsyncIterator[int]:
    """The port of an application with `/act` alone."""
    api = FastAPI()
    answer_failures(api)

    @api.post("/act")
    async def _act(request: Request) -> Response:
        return await act(Policy(), request, SERVED)

    server = uvicorn.Server(uvicorn.Config(api, port=0, log_level="error", lifespan="off"))
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110  # uvicorn tells nobody
        await asyncio.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await serving


async def begun(port: int, sent: bytes, headers: str = "") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection on which a part of BODY was sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST /act HTTP/1.1\r\nHost: test\r\nContent-Length: {len(BODY)}\r\n{headers}\r\n"
    writer.write(head.encode() + sent)
    await writer.drain()
    return reader, writer


async def test_clients_that_stop_in_mid_body_keep_nobody_from_an_answer_and_may_go_on() -> None:
    async with served() as port, asyncio.timeout(60):
        stalled = [await begun(port, BODY[:20]) for _ in range(20)]
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            assert (await client.post("/act", content=BODY)).json() == [0.0] * 7
        for reader, writer in stalled:
            writer.write(BODY[20:])
            assert b" 200 OK" in await reader.readline()
            writer.close()


async def test_a_client_that_never_goes_on_is_told_so() -> None:
    async with served() as port, asyncio.timeout(60):
        reader, writer = await begun(port, BODY[:20], "x-timeout-s: 0.1\r\n")
        assert b" 408 " in await reader.readline()
        writer.close()


@pytest.mark.parametrize("sent", [b"", BODY[:20]])
async def test_a_client_that_leaves_in_mid_body_leaves_the_server_well(sent: bytes) -> None:
    async with served() as port, asyncio.timeout(60):
        _, writer = await begun(port, sent)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            assert (await client.post("/act", content=BODY)).status_code == 200
