"""Ports of this machine."""

from __future__ import annotations

import socket

import pytest

from training.cluster.errors import ClusterError
from training.cluster.ports import check_port, free_port


def test_a_free_port_can_be_listened_on() -> None:
    port = free_port()
    assert 0 < port < 65536
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        check_port("127.0.0.1", 0)


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
