"""A server of this folder as a process of its own, on a free port of loopback."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from training.cluster.ports import free_port

THREADS = 1  # torch threads of every side: what a replica that reserves one CPU has
START_S, END_S = 120.0, 10.0


@contextmanager
def running(server: str, *arguments: str) -> Iterator[int]:
    """`python -m benchmarks.servers.SERVER PORT ARGUMENTS`; yields the port once something listens there.

    Raises RuntimeError when the process ends before, TimeoutError after START_S.
    """
    port = free_port()
    command = [sys.executable, "-m", f"benchmarks.servers.{server}", str(port), *arguments]
    process = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": str(THREADS)})
    try:
        _wait_until_it_listens(process, server, port)
        yield port
    finally:
        process.terminate()
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:  # a handler that is in its model's pass
            process.kill()
            process.wait(END_S)


def _wait_until_it_listens(process: subprocess.Popen[bytes], server: str, port: int) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the server {server} ended with exit code {process.returncode}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise TimeoutError(f"the server {server} did not listen within {START_S:g} s")
