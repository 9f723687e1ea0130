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
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from deployments.storage import owned
from deployments.storage.owned import Owner
from training.cluster import accelerators, quiet, started, watcher
from training.cluster.errors import ClusterError
from training.cluster.loopback import haproxy_settings
from training.cluster.ports import free_port

logger = logging.getLogger("rayward")

ADMIN_SOCKET = "admin"
LONGEST_ADMIN_SOCKET = 97 - 57  # bytes that HAProxy takes, less those that Serve puts in front of the name
SHORT = "/tmp"  # where there is room for sockets if TMPDIR is too long
LOCAL = "local"  # Ray's address for: start one, whatever runs already or is written in an address file
LONGEST_SOCKET_PATH = 107  # bytes, on Linux
END_GRACE_S = 2.0  # between SIGTERM and SIGKILL for what is left


@contextmanager
def _own_environment() -> Iterator[None]:
    """What Ray's processes read when they start; a value that is already there stays, but for the mark, and but for the
    folder and ports of a Ray around this process. At the end, or when this process is killed, whatever carries the mark
    ends, too: Serve leaves HAProxy behind when its manager is killed first, and a replica its engine."""
    started.end_orphans()
    folder = _new_folder()
    me = Owner.current()
    ours = {**process_settings(folder, os.environ), started.MARK: started.mark(me)}
    before = {name: os.environ.get(name) for name in ours}
    with watcher.watched(folder):
        os.environ.update(ours)
        try:
            yield
        finally:
            started.end(lambda owner: owner == me, grace_s=END_GRACE_S)
            shutil.rmtree(folder, ignore_errors=True)
            owned.take_back()  # a replica that had to be killed leaves its weights in shared memory
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


def _new_folder() -> Path:
    """Temporary, with a path that is short enough for the socket of HAProxy."""
    folder = Path(tempfile.mkdtemp(prefix="rayward-"))
    if len(os.fsencode(folder / ADMIN_SOCKET)) <= LONGEST_ADMIN_SOCKET:
        return folder
    folder.rmdir()
    return Path(tempfile.mkdtemp(prefix="rayward-", dir=SHORT))


def process_settings(folder: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """What a Ray that starts on this machine needs beyond `environment`. The folder and the ports in it are replaced
    where they are those of another rayward Ray, in whose process or worker this command was started."""
    own, same = _own_settings(folder), _same_settings()
    if started.MARK not in environment:
        own = {name: value for name, value in own.items() if name not in environment}
    return own | {name: value for name, value in same.items() if name not in environment}


def _own_settings(folder: Path) -> dict[str, str]:
    """HAProxy's files lie in `folder` and its ports are free ones, so that a second Ray on the same machine does not
    meet the first."""
    return {
        **_vllm_sockets(folder),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / ADMIN_SOCKET),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        **haproxy_settings(folder),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(free_port()),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(free_port()),
    }


def _same_settings() -> dict[str, str]:
    from deployments.app import THROUGHPUT_SWITCHES

    return {
        **THROUGHPUT_SWITCHES,
        # For load balancers outside, which there are none of: every orderly end would take half a minute.
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
        # By default 5: on a busy machine the proxy would be killed while it starts, and the command with it.
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
        "RAY_worker_niceness": "0",  # by default 15: whatever else runs here would be served before the robots
        "RAY_DEDUP_LOGS": "1",
        "RAY_TRAIN_V2_ENABLED": "1",
        "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # an actor of 0.12 GiB: nobody announces the end of one machine
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        **quiet.SETTINGS,
    }


def _vllm_sockets(folder: Path) -> dict[str, str]:
    """vLLM leaves the sockets between its processes where they are made, in the temporary folder: in ours they go with
    it. A folder whose path is too long for a Unix socket is left out."""
    name = 36  # characters of the UUID that vLLM gives a socket
    return {"VLLM_RPC_BASE_PATH": str(folder)} if len(f"{folder}/") + name <= LONGEST_SOCKET_PATH else {}


def starts_here(address: str | None = None) -> bool:
    """Whether `ray_session` would start Ray on this machine, rather than join one."""
    import ray

    return not ray.is_initialized() and _address(address) == LOCAL


def _address(given: str | None) -> str:
    return given or os.environ.get("RAY_ADDRESS") or LOCAL


@contextmanager
def ray_session(address: str | None = None) -> Iterator[bool]:
    """Joins the cluster at `address` (or RAY_ADDRESS), or starts Ray on this machine and stops it at the end, whatever
    other Ray runs there. Yields whether it was started here: then it has this machine's resources, and no more will
    come. Raises ClusterError."""
    import ray

    if ray.is_initialized():
        yield False
        return
    address = _address(address)
    own = address == LOCAL
    with ExitStack() as stack:
        if own:
            stack.enter_context(_own_environment())
            stack.enter_context(_on_loopback())
        else:
            check_reachable(address)
        _init(address)
        orderly = own
        try:
            yield own
        except KeyboardInterrupt:
            orderly = False
            raise
        finally:
            _shut_down(orderly)


def check_reachable(address: str, timeout_s: float = 5.0) -> None:
    """Ray itself tries for a minute and a half in silence. Raises ClusterError when nothing listens there."""
    host, separator, port = address.rpartition("://")[2].rpartition(":")
    if not separator or not port.isdigit():
        return  # "auto" and other names that Ray resolves
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=timeout_s).close()
    except OSError as error:
        raise ClusterError(
            f"no Ray answers at {address} ({error}): correct RAY_ADDRESS, start the cluster, or unset RAY_ADDRESS to "
            "start Ray on this machine"
        ) from error


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Ray takes the machine's outward address for itself and listens on all interfaces, and some of its ports accept
    pickles. With this switch, made for other systems, its own address is 127.0.0.1, and its servers listen there.
    `_node_ip_address="127.0.0.1"` does not do it: ray.init resolves it to the outward address."""
    from ray._private import ray_constants

    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False  # read from the environment when Ray was imported
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def _init(address: str) -> None:
    import ray

    own = address == LOCAL
    try:
        ray.init(
            address=address,
            # Logical CPUs: the processes of one machine take turns, and the defaults reserve little.
            num_cpus=max(8, os.cpu_count() or 1) if own else None,
            resources=accelerators.of_this_machine() if own else None,
            include_dashboard=False if own else None,
            log_to_driver=os.environ.get("RAYWARD_WORKER_LOGS", "0") == "1",
            logging_level=logging.ERROR,
            object_store_memory=512 * 1024 * 1024 if own else None,
            configure_logging=True,
        )
    except (ConnectionError, RuntimeError, OSError, ValueError) as error:
        raise ClusterError(f"Ray could not be {'started' if own else f'reached at {address}'}: {error}") from error
    for name in ("ray", "ray.serve", "ray.train"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if threading.current_thread() is threading.main_thread():
        # Ray's own handler ends the process before replicas and workers are shut down.
        signal.signal(signal.SIGTERM, signal.default_int_handler)


def _shut_down(orderly: bool) -> None:
    """Leaves the cluster. `orderly`: Serve of our own ends its replicas first, which takes as long as they drain; else
    they end with Ray, and what is left then is ended by its mark."""
    import ray
    from ray import serve

    # Serve kills its controller while calls to it are open, and Ray reports each of them as an error on stdout.
    with contextlib.redirect_stdout(io.StringIO()):
        if orderly:
            serve.shutdown()
        ray.shutdown()
