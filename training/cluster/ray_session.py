"""Ray around a command: joined, or started here and ended with all that it started."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from training.cluster import quiet
from training.cluster.errors import ClusterError
from training.cluster.ports import free_port

logger = logging.getLogger("rayward")


ADMIN_SOCKET = "admin.sock"


@contextmanager
def _own_environment() -> Iterator[None]:
    """What Ray's processes read when they start; a value that is already there stays. At the end it is taken back."""
    folder = Path(tempfile.mkdtemp(prefix="rayward-haproxy-"))
    ours = {name: value for name, value in process_settings(folder).items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        _end_haproxy(folder / ADMIN_SOCKET)
        shutil.rmtree(folder, ignore_errors=True)
        for name in ours:
            os.environ.pop(name, None)


def _end_haproxy(admin: Path) -> None:
    """Ends the HAProxy that answers at this socket: Serve leaves it behind when its manager is killed first."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
        client.settimeout(2.0)
        client.connect(str(admin))
        client.sendall(b"show info\n")
        answer = client.makefile("r").read()
        pids = [int(line.partition(":")[2]) for line in answer.splitlines() if line.startswith("Pid:")]
        for pid in pids:
            os.kill(pid, signal.SIGTERM)


def process_settings(folder: Path) -> dict[str, str]:
    """Environment of a Ray that starts on this machine. HAProxy's files lie in `folder` and its ports are free ones, so
    that a second Ray on the same machine does not meet the first."""
    from deployments.app import THROUGHPUT_SWITCHES

    return {
        **THROUGHPUT_SWITCHES,
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / ADMIN_SOCKET),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(free_port()),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(free_port()),
        "RAY_DEDUP_LOGS": "1",
        "RAY_TRAIN_V2_ENABLED": "1",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        **quiet.SETTINGS,
    }


def starts_here(address: str | None = None) -> bool:
    """Whether `ray_session` would start Ray on this machine, rather than join one."""
    import ray

    return not ray.is_initialized() and (address or os.environ.get("RAY_ADDRESS")) is None


@contextmanager
def ray_session(address: str | None = None) -> Iterator[bool]:
    """Joins the cluster at `address` (or RAY_ADDRESS), or starts Ray on this machine and stops it at the end. Yields
    whether it was started here: then it has this machine's resources, and no more will come."""
    import ray

    if ray.is_initialized():
        yield False
        return
    address = address or os.environ.get("RAY_ADDRESS")
    with ExitStack() as stack:
        if address is None:
            stack.enter_context(_own_environment())
        _init(address)
        try:
            yield address is None
        finally:
            _shut_down(started=address is None)


def _init(address: str | None) -> None:
    import ray

    started = address is None
    try:
        ray.init(
            address=address,
            # Logical CPUs: the processes of one machine take turns, and the defaults reserve little.
            num_cpus=max(8, os.cpu_count() or 1) if started else None,
            include_dashboard=False if started else None,
            log_to_driver=os.environ.get("RAYWARD_WORKER_LOGS", "0") == "1",
            logging_level=logging.ERROR,
            object_store_memory=512 * 1024 * 1024 if started else None,
            configure_logging=True,
        )
    except (ConnectionError, RuntimeError, OSError) as error:
        raise ClusterError(f"Ray could not be {'started' if started else f'reached at {address}'}: {error}") from error
    for name in ("ray", "ray.serve", "ray.train"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if threading.current_thread() is threading.main_thread():
        # Ray's own handler ends the process before replicas and workers are shut down.
        signal.signal(signal.SIGTERM, signal.default_int_handler)


def _shut_down(started: bool) -> None:
    import ray
    from ray import serve

    # Serve kills its controller while calls to it are open, and Ray reports each of them as an error on stdout.
    with contextlib.redirect_stdout(io.StringIO()):
        if started:
            serve.shutdown()
        ray.shutdown()
