"""How Serve's gRPC servers are started, tried on Serve's own server."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from ray.serve._private import constants, default_impl, grpc_util

from configs.serving import GrpcConfig
from deployments.protocol import policy_pb2 as pb
from deployments.protocol.policy_pb2_grpc import RobotPolicyServiceStub
from deployments.transports import grpc_server


@pytest.fixture(autouse=True)
def as_serve_was() -> Iterator[None]:
    options, address = list(constants.DEFAULT_GRPC_SERVER_OPTIONS), default_impl.add_grpc_address
    yield
    constants.DEFAULT_GRPC_SERVER_OPTIONS[:] = options
    default_impl.add_grpc_address = address


@asynccontextmanager
async def serves_own(port: int) -> AsyncIterator[None]:
    """A gRPC server as Serve's proxies and replicas start it, which answers that it is healthy."""

    def answers(service_method: str, streaming_type: Any) -> Any:
        async def answer(request: Any, context: Any) -> bytes:
            return bytes(pb.HealthCheckResponse(healthy=True).SerializeToString())

        return answer

    options = grpc_server.options(GrpcConfig(port=port))
    task, server = await grpc_util.start_grpc_server(answers, options, event_loop=asyncio.get_running_loop())
    try:
        yield
    finally:
        await server.stop(None)
        await task


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_the_servers_of_a_ray_on_loopback_answer_there_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.util.get_node_ip_address", lambda: "127.0.0.1")
    port = free_port()

    assert grpc_server.prepared() == []

    async with serves_own(port):
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            assert (await RobotPolicyServiceStub(channel).HealthCheck(pb.HealthCheckRequest())).healthy
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.2", port), timeout=5)  # loopback, too, but not the one that was bound


def test_a_second_call_changes_nothing_more() -> None:
    grpc_server.prepared()
    once = list(constants.DEFAULT_GRPC_SERVER_OPTIONS)

    grpc_server.prepared()

    assert once == constants.DEFAULT_GRPC_SERVER_OPTIONS
    assert ("grpc.http2.min_ping_interval_without_data_ms", 5000) in once


def test_serve_finds_what_it_is_told() -> None:
    from ray._common.utils import import_attr

    assert import_attr(grpc_server.ON_START) is grpc_server.prepared
    assert [function.__name__ for function in grpc_server.options(GrpcConfig()).grpc_servicer_func_callable] == [
        "add_RobotPolicyServiceServicer_to_server"
    ]
