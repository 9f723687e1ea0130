"""Real servers of the transports, in the test's own process and on a free port of loopback."""

from __future__ import annotations

import asyncio
import socket as sockets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import grpc
import uvicorn
from fastapi import FastAPI, WebSocket
from ray.serve.grpc_util import RayServegRPCContext

from deployments.errors import PolicyError
from deployments.protocol.policy_pb2_grpc import add_RobotPolicyServiceServicer_to_server
from deployments.transports.front import Front
from deployments.transports.grpc_service import RobotPolicyMethods
from deployments.transports.http import access
from deployments.transports.websocket.openpi import serve_openpi


class Methods(RobotPolicyMethods):
    def __init__(self, its_front: Front, statuses: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        self._front = its_front
        self._statuses = statuses or {"arm": {"ready": True, "device": "cpu"}}

    def streaming_front(self) -> Front:
        return self._front

    async def policy_statuses(self) -> Mapping[str, Mapping[str, Any]]:
        return self._statuses


class AsServeCalls:
    """What Serve does around the methods: its own context in, which it copies to gRPC's behind a result; the status of
    an exception goes out, too."""

    def __init__(self, methods: Methods) -> None:
        self._methods = methods

    async def GetActionChunk(self, request: Any, context: Any) -> Any:
        return await self._unary(self._methods.GetActionChunk, request, context)

    async def HealthCheck(self, request: Any, context: Any) -> Any:
        return await self._unary(self._methods.HealthCheck, request, context)

    async def StreamActionChunks(self, requests: Any, context: Any) -> Any:
        ours = RayServegRPCContext(context)
        try:
            async for answer in self._methods.StreamActionChunks(requests, grpc_context=ours):
                yield answer
        except PolicyError:
            context.set_code(ours.code())
            context.set_details(ours.details())

    async def _unary(self, method: Any, request: Any, context: Any) -> Any:
        ours = RayServegRPCContext(context)
        answer = await method(request, grpc_context=ours)
        ours._set_on_grpc_context(context)
        return answer


@asynccontextmanager
async def grpc_server(methods: Methods) -> AsyncIterator[str]:
    """Its address."""
    server = grpc.aio.server()
    add_RobotPolicyServiceServicer_to_server(AsServeCalls(methods), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


@asynccontextmanager
async def http_server(app: FastAPI) -> AsyncIterator[str]:
    """host:port of a uvicorn server in this process."""
    listening = sockets.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(512)
    server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_level="error"))
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        yield f"127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        server.force_exit = True
        await serving


@asynccontextmanager
async def openpi_server(its_front: Front) -> AsyncIterator[str]:
    """ws:// address of a server as the ingress has it."""
    app = FastAPI()

    @app.websocket("/")
    @app.websocket("/policies/{name}")
    async def root(socket: WebSocket) -> None:
        await serve_openpi(socket, its_front)

    app.add_middleware(access.RequireKey)
    access.require(its_front.keys)  # type: ignore[arg-type]
    async with http_server(app) as address:
        yield f"ws://{address}"
