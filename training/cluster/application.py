"""The Serve application that a command starts and ends."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from configs.base import ConfigError
from configs.policies import AnyPolicy, ChunkPolicy, PolicyConfig, ProviderPolicy
from configs.providers import provider_error
from configs.serving import HttpConfig, ServeConfig
from configs.training import TrainConfig
from deployments.chunks.lerobot import is_lerobot, read_policy
from deployments.storage.models import context_error, model_folder_error
from training.cluster import ray_session
from training.cluster.errors import ClusterError
from training.cluster.placement import INGRESS_CPUS
from training.cluster.ports import check_port, free_port

APPLICATION = "rayward"


def serve_config(
    config: TrainConfig,
    model: str,
    weights_root: str | None,
    app: str = APPLICATION,
    route: str = "/",
    port: int | None = None,
) -> ServeConfig:
    """The application that a training run starts for itself."""
    policies = [policy_config(config, model, weights_root)]
    if config.self_play.past_share and weights_root is not None:
        policies.append(past_policy_config(policies[0], config.serving.past_policy, weights_root))
    port = port or config.serving.http_port or free_port()
    return ServeConfig(
        name=app, policies=policies, http=HttpConfig(port=port, root_path=route), ingress_cpus=INGRESS_CPUS
    )


def past_root(weights_root: str) -> str:
    """The weight store of the policy that plays with past versions."""
    return f"{weights_root.rstrip('/')}-past"


def past_policy_config(policy: PolicyConfig, name: str, weights_root: str) -> PolicyConfig:
    """One replica like those of `policy`, for its past versions; its weights come from files alone."""
    return policy.model_copy(
        update={
            "name": name,
            "weights_root": past_root(weights_root),
            "engine": policy.engine.model_copy(update={"weight_transfer": "store"}),
            "replicas": policy.replicas.model_copy(update={"min_replicas": 1, "max_replicas": 1}),
        }
    )


def policy_config(config: TrainConfig, model: str, weights_root: str | None) -> PolicyConfig:
    """The policy that a training run trains."""
    return PolicyConfig(
        name=config.serving.policy,
        model=model,
        weights_root=weights_root,
        engine=config.serving.engine.model_copy(update={"weight_transfer": config.weights.transport}),
        replicas=config.serving.replicas,
        request_deadline_s=config.rollout.request_deadline_s,
    )


def check_servable(policy: AnyPolicy) -> None:
    """What can be told before Ray starts, with its first cause: a replica would fail three times, a minute later, and
    Serve would not say why. Raises ClusterError."""
    match policy:
        case PolicyConfig(engine=engine):
            problem = model_folder_error(policy.model) or context_error(policy.model, engine.max_model_len)
            problem = problem or _device_error(engine.device, "engine.device")
        case ChunkPolicy():
            problem = checkpoint_error(policy.checkpoint) or _device_error(policy.device, "device")
        case ProviderPolicy():
            problem = provider_error(policy, os.environ) if ray_session.starts_here() else None
    if problem:
        raise ClusterError(f"policy {policy.name!r} cannot be served: {problem}")


def checkpoint_error(checkpoint: str) -> str | None:
    """Why a checkpoint of a chunk policy cannot be loaded, as far as its files tell; None where none is missing."""
    folder = Path(checkpoint).expanduser()
    if is_lerobot(folder):
        return _lerobot_error(folder)
    missing = [name for name in ("train_config.json", "model.safetensors") if not (folder / name).is_file()]
    if not missing:
        return None
    return (
        f"checkpoint {checkpoint!r} has no {' and no '.join(missing)}: name a folder that training.bc or LeRobot has "
        "written"
    )


def _lerobot_error(folder: Path) -> str | None:
    try:
        read_policy(folder)
    except ConfigError as error:
        return str(error)
    return None


def _device_error(device: str, setting: str) -> str | None:
    if device != "gpu" or not ray_session.starts_here() or gpus_here():
        return None
    return f"{setting} is 'gpu', and this machine has none: set {setting} to auto or cpu, or RAY_ADDRESS"


def gpus_here() -> int:
    import torch

    return torch.cuda.device_count()


def with_made_models(config: ServeConfig) -> ServeConfig:
    """The configuration once the models are there that are made on the spot. Raises ConfigError."""
    from deployments import app

    return app.with_made_models(config)


@contextmanager
def application(config: ServeConfig) -> Iterator[Any]:
    """The Serve application, ready; deleted at the end with the policies that were loaded into it: after Ctrl-C without
    waiting for it. Yields the ingress handle.

    Raises ClusterError when it does not get ready, or not within the longest `start_deadline_s` of its policies.
    """
    from ray import serve

    from deployments.app import bind, grpc_options, loaded_applications

    app = bind(config)
    start_serve(config.http, grpc_options(config))
    wait = True
    try:
        yield _run(app, config)
    except KeyboardInterrupt:
        wait = False
        raise
    finally:
        serve.delete(config.name, _blocking=wait)
        for name in loaded_applications(config.name) if config.http.manage_policies else []:
            serve.delete(name, _blocking=wait)


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


def with_free_ports(config: ServeConfig) -> ServeConfig:
    """The configuration with ports that are free now in place of 0."""
    changes: dict[str, Any] = {"http": config.http.model_copy(update={"port": config.http.port or free_port()})}
    if config.grpc is not None:
        changes["grpc"] = config.grpc.model_copy(update={"port": config.grpc.port or free_port()})
    return config.model_copy(update=changes)


def start_serve(http: HttpConfig, grpc_options: Any = None) -> None:
    """Serve's controller and the proxy on the head node. Where they run already, they keep the ports that they have.
    `grpc_options`: see `deployments.app.grpc_options`. Raises ClusterError when the proxy does not get ready."""
    from ray import serve
    from ray.exceptions import RayError
    from ray.serve.config import HTTPOptions, ProxyLocation

    port = http.port or free_port()
    check_port(http.host, port)
    try:
        serve.start(
            proxy_location=ProxyLocation.HeadOnly,
            http_options=HTTPOptions(host=http.host, port=port),
            grpc_options=grpc_options,
            logging_config={"log_level": "ERROR", "enable_access_log": False},
        )
    except (TimeoutError, RayError) as error:
        raise ClusterError(
            f"the proxy of Ray Serve was not ready on port {port} within a minute ({type(error).__name__}): is the "
            "machine busy with other work? the folder logs/serve of Ray's session says more"
        ) from error


def served_policy(app: str, policy: str, deadline_s: float = 30.0) -> PolicyConfig:
    """How the policy of a running application is served. Raises ClusterError when there is none, or no replica answers
    within `deadline_s`."""
    from ray import serve
    from ray.exceptions import RayError
    from ray.serve.exceptions import RayServeException

    running = sorted(serve.status().applications)
    if app not in running:
        raise ClusterError(
            f"serving.connect names the application {app!r}; running on this cluster: {', '.join(running) or 'none'}"
        )
    try:
        return asyncio.run(asyncio.wait_for(_asked(policy, app), deadline_s))
    except (TimeoutError, RayError, RayServeException) as error:
        raise ClusterError(
            f"the application {app!r} does not say how it serves {policy!r} within {deadline_s:g} s "
            f"({type(error).__name__}): is there a policy of that name (serving.policy), and is it healthy?"
        ) from error


async def _asked(policy: str, app: str) -> PolicyConfig:
    """In a loop: with Serve's throughput switches a handle cannot be used outside of one."""
    from ray import serve

    found: PolicyConfig = await serve.get_deployment_handle(policy, app).served.remote()
    return found


def http_port() -> int:
    """The port at which Serve listens: the configured one may be 0, or Serve may have run already with another."""
    from ray.serve.context import _get_global_client

    return int(_get_global_client().http_config.port)


def delete_application(name: str) -> None:
    """Deletes the application, if there is one."""
    from ray import serve

    if name in serve.status().applications:
        serve.delete(name, _blocking=True)


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
