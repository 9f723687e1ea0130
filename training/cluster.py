"""Ray and the Serve application around a command: start or join, and end what was started."""

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
from collections import defaultdict
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from configs.serving import HttpConfig, PolicyConfig, ServeConfig
from configs.training import TrainConfig
from training import quiet

logger = logging.getLogger("rayward")

APPLICATION = "rayward"
ADMIN_SOCKET = "admin.sock"
INGRESS_CPUS, COORDINATOR_CPUS = 0.1, 0.1


class ClusterError(RuntimeError):
    """Ray or the Serve application could not be started or reached; the message says what to do."""


def model_folder_error(model: str) -> str | None:
    """Why a model folder cannot be served, None when it can (or is a hub name)."""
    from deployments import app

    return app.model_folder_error(model)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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


@dataclass(frozen=True)
class Role:
    """One kind of process of a run: how many there are (`at_most` after autoscaling), and what each reserves."""

    name: str
    count: int
    at_most: int
    cpus: float
    gpus: float = 0
    resources: Mapping[str, float] = field(default_factory=dict)


def placement(config: TrainConfig) -> list[Role]:
    """Who runs where, on how much. The replicas and their ingress are left out when the run joins an application."""
    from deployments.app import on_gpu

    learner, replicas, engine = config.learner, config.serving.replicas, config.serving.engine
    gpus = engine.gpus if on_gpu(engine) else 0
    first = max(replicas.min_replicas, 1)
    serving = [
        Role("policy replica", first, replicas.max_replicas, replicas.num_cpus, gpus, replicas.resources),
        Role("ingress", 1, 1, INGRESS_CPUS),
    ]
    return [
        *(serving if config.serving.connect is None else []),
        Role(
            "learner",
            learner.workers,
            learner.workers,
            learner.cpus_per_worker,
            learner.gpus_per_worker,
            learner.resources,
        ),
        Role("rollout worker", config.rollout.workers, config.rollout.workers, config.rollout.worker_cpus),
        Role("coordinator", 1, 1, COORDINATOR_CPUS),
    ]


def needed(config: TrainConfig) -> dict[str, float]:
    """GPUs and custom resources that a run reserves at its start, for its learner and the replicas that it starts."""
    total: defaultdict[str, float] = defaultdict(float)
    for role in placement(config):
        for name, amount in {"GPU": role.gpus, **role.resources}.items():
            total[name] += role.count * amount
    return {name: amount for name, amount in total.items() if amount}


def check_fits(config: TrainConfig) -> None:
    """Raises ClusterError when the cluster has less than `needed`: the run would wait for it forever."""
    import ray

    there = ray.cluster_resources()
    short = [
        f"{name} {n:g} (there: {there.get(name, 0):g})" for name, n in needed(config).items() if there.get(name, 0) < n
    ]
    if short:
        raise ClusterError(
            f"this machine does not have what the configuration reserves: {', '.join(short)}. Submit it to a cluster "
            "(docs/cluster.md, or RAY_ADDRESS), or take a *_tiny configuration; --dry-run shows who needs what"
        )


def serve_config(
    config: TrainConfig,
    model: str,
    weights_root: str | None,
    app: str = APPLICATION,
    route: str = "/",
    port: int | None = None,
) -> ServeConfig:
    """The application that a training run starts for itself."""
    policy = PolicyConfig(
        name=config.serving.policy,
        model=model,
        weights_root=weights_root,
        engine=config.serving.engine.model_copy(update={"weight_transfer": config.weights.transport}),
        replicas=config.serving.replicas,
        request_deadline_s=config.rollout.request_deadline_s,
    )
    port = port or config.serving.http_port or free_port()
    return ServeConfig(
        name=app, policies=[policy], http=HttpConfig(port=port, root_path=route), ingress_cpus=INGRESS_CPUS
    )


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


@contextmanager
def application(config: ServeConfig) -> Iterator[Any]:
    """The Serve application, ready; deleted at the end. Yields the ingress handle.

    Raises ClusterError when it does not get ready, or not within the longest `start_deadline_s` of its policies.
    """
    from ray import serve

    from deployments.app import bind

    app = bind(config)
    start_serve(config.http)
    try:
        yield _run(app, config)
    finally:
        serve.delete(config.name, _blocking=True)


def _run(app: Any, config: ServeConfig) -> Any:
    """`serve.run` with a deadline, which it does not have: without room for a replica it would wait forever."""
    from ray import serve

    deadline_s = max(policy.replicas.start_deadline_s for policy in config.policies)
    started: Future[Any] = Future()

    def start() -> None:
        try:
            started.set_result(serve.run(app, name=config.name, route_prefix=config.http.root_path))
        except BaseException as error:  # carried to the caller's thread
            started.set_exception(error)

    # a daemon: one that waits for ever must not keep the process from ending
    threading.Thread(target=start, name="serve-run", daemon=True).start()
    try:
        return started.result(timeout=deadline_s)
    except RuntimeError as error:
        raise ClusterError(f"the Serve application did not get ready: {error} {_why(config.name)}") from error
    except TimeoutError as error:
        raise ClusterError(
            f"the Serve application was not ready within replicas.start_deadline_s ({deadline_s:g} s): "
            f"{_why(config.name) or 'no replica was placed'}. `ray status` shows what is missing"
        ) from error


def start_serve(http: HttpConfig) -> None:
    """Serve's controller and the proxy on the head node. Where they run already, they keep the port that they have."""
    from ray import serve
    from ray.serve.config import HTTPOptions, ProxyLocation

    port = http.port or free_port()
    check_port(http.host, port)
    serve.start(
        proxy_location=ProxyLocation.HeadOnly,
        http_options=HTTPOptions(host=http.host, port=port),
        logging_config={"log_level": "ERROR", "enable_access_log": False},
    )


def delete_applications(prefix: str) -> None:
    """Deletes the applications whose name begins so, if any are left."""
    from ray import serve

    for name in serve.status().applications:
        if name.startswith(prefix):
            serve.delete(name, _blocking=True)


def _why(app: str) -> str:
    """What Serve says of the deployments that failed, the last line of each."""
    from ray import serve

    status = serve.status().applications.get(app)
    messages = [d.message for d in status.deployments.values() if d.message] if status is not None else []
    return "; ".join(message.strip().splitlines()[-1] for message in messages)
