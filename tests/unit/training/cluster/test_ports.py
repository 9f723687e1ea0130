"""Ports of this machine."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from training.cluster.errors import ClusterError
from training.cluster.ports import check_port, free_port


def test_a_free_port_can_be_listened_on() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", free_port()))
        server.listen()


def test_no_outgoing_connection_takes_a_free_port_before_it_is_used() -> None:
    first_given_out = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert all(port < first_given_out for port in (free_port() for _ in range(20)))


def test_a_port_that_is_taken_is_told_with_what_to_do() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        with pytest.raises(ClusterError, match=rf"port {port} on 127\.0\.0\.1 cannot be used .*choose another"):
            check_port("127.0.0.1", port)


def test_an_address_that_this_machine_does_not_have_is_told() -> None:
    with pytest.raises(ClusterError, match=r"on 192\.0\.2\.1 cannot be used"):
        check_port("192.0.2.1", 0)
