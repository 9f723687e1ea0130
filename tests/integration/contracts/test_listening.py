"""Where the processes of `rayward serve` listen: HTTP, gRPC, WebSocket, HAProxy's own pages, Ray."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

import psutil
import pytest

from tests.integration.contracts.robots import RobotServer
from tests.integration.processes import marked

pytestmark = pytest.mark.integration


@dataclass(frozen=True)
class Listening:
    """A TCP socket, and the program that listens on it."""

    program: str
    ip: str
    port: int

    @property
    def is_loopback(self) -> bool:
        address = ipaddress.ip_address(self.ip)
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        return (mapped or address).is_loopback


def listening(mark: str) -> list[Listening]:
    """Of all processes that a command started, however far away from it."""
    found = []
    for process in marked(mark):
        try:
            program = " ".join(process.cmdline())[:120] or process.name()
            sockets = process.net_connections(kind="tcp")
        except psutil.NoSuchProcess:  # it ended meanwhile
            continue
        found += [Listening(program, s.laddr.ip, s.laddr.port) for s in sockets if s.status == psutil.CONN_LISTEN]
    return found


def test_nothing_listens_beyond_loopback(robots: RobotServer) -> None:
    found = listening(robots.mark)

    assert [socket for socket in found if not socket.is_loopback] == []
    # What was looked at is the whole: both doors, and HAProxy's statistics and metrics beside them.
    ports = {socket.port for socket in found if "haproxy" in socket.program}
    assert {int(address.rpartition(":")[2]) for address in (robots.http, robots.grpc)} <= ports
    assert len(ports) == 4
    programs = " ".join(socket.program for socket in found)
    assert all(name in programs for name in ("gcs_server", "raylet", "ServeReplica"))
