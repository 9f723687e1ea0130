"""Where a replica takes calls, tried on the server that Serve gives a replica."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import grpc
import pytest
from ray.serve._private import replica

from deployments.replicas.node_port import listen_at_node


@pytest.fixture(autouse=True)
def as_serve_was() -> Iterator[None]:
    before = replica.add_port_to_grpc_server
    yield
    replica.add_port_to_grpc_server = before


async def test_a_replica_on_loopback_is_reached_there_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.util.get_node_ip_address", lambda: "127.0.0.1")
    server = grpc.aio.server()

    listen_at_node()
    port = replica.add_port_to_grpc_server(server, "[::]:0")  # as a replica calls it once it is made

    await server.start()
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.2", port), timeout=5)  # loopback, too, but not the one that was bound
    finally:
        await server.stop(None)
