"""Ray and the Serve application around a command: start or join, and end what was started."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from configs.serving import HttpConfig, PolicyConfig, ServeConfig
from configs.training import TrainConfig

logger = logging.getLogger("rayward")

APPLICATION = "rayward"


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


def prepare_environment() -> None:
    """Sets what Ray's processes read when they start, before `ray.init`; a value that is already there stays."""
    for name, value in process_settings(Path(tempfile.mkdtemp(prefix="rayward-haproxy-"))).items():
        os.environ.setdefault(name, value)


def process_settings(folder: Path) -> dict[str, str]:
    """Environment of a Ray that starts on this machine. HAProxy's files lie in `folder` and its ports are free ones, so
    that a second Ray on the same machine does not meet the first."""
    from deployments.app import THROUGHPUT_SWITCHES

    return {
        **THROUGHPUT_SWITCHES,
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
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
        "VLLM_LOGGING_LEVEL": "ERROR",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


@contextmanager
def ray_session(address: str | None = None) -> Iterator[None]:
    """Joins the cluster at `address` (or RAY_ADDRESS), or starts Ray on this machine and stops it at the end."""
    import ray

    if ray.is_initialized():
        yield
        return
    address = address or os.environ.get("RAY_ADDRESS")
    if address is None:
        prepare_environment()
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
    try:
        yield
    finally:
        from ray import serve

        # Serve kills its controller while calls to it are open, and Ray reports each of them as an error on stdout.
        with contextlib.redirect_stdout(io.StringIO()):
            if started:
                serve.shutdown()
            ray.shutdown()


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
    return ServeConfig(name=app, policies=[policy], http=HttpConfig(port=port, root_path=route), ingress_cpus=0.1)


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

    Raises ClusterError when it does not get ready.
    """
    from ray import serve

    from deployments.app import bind

    app = bind(config)
    start_serve(config.http)
    try:
        try:
            handle = serve.run(app, name=config.name, route_prefix=config.http.root_path)
        except RuntimeError as error:
            raise ClusterError(f"the Serve application did not get ready: {error} {_why(config.name)}") from error
        yield handle
    finally:
        serve.delete(config.name, _blocking=True)


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
