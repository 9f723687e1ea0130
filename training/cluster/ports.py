"""Ports of this machine."""

from __future__ import annotations

import random
import socket

from training.cluster.errors import ClusterError

# Below what the kernel gives to outgoing connections, above what Ray gives to its workers: a port that is listened on
# seconds after it was chosen must not be taken meanwhile.
QUIET_PORTS = range(20_000, 32_768)
TRIES = 100


def free_port() -> int:
    """A port of loopback that nothing listens on now."""
    for port in random.SystemRandom().sample(QUIET_PORTS, TRIES):  # two commands must not choose alike
        if _is_free(port):
            return port
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def check_port(host: str, port: int) -> None:
    """Raises ClusterError when something listens there already."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ClusterError(
                f"port {port} on {host} cannot be used ({error.strerror}): choose another with http.port, or 0 for any"
            ) from error
