"""The one place where deployments are bound: `serve run deployments.app:build config=configs/serve/NAME.yaml`."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig, BackpressureConfig, RequestRouterConfig, gRPCOptions
from ray.serve.schema import LoggingConfig

from configs.base import ConfigError
from configs.policies import AnyPolicy, ChunkPolicy, PolicyConfig, ProviderPolicy
from configs.providers import with_environment
from configs.serving import ServeConfig
from deployments.engines.vllm import tiny
from deployments.engines.vllm.settings import on_gpu, process_environment
from deployments.errors import RETRY_AFTER_S, TABLE
from deployments.storage.models import model_folder_error
from deployments.transports import grpc_server
from deployments.transports.http.ingress import Ingress
from deployments.transports.serve_applications import NO_INGRESS, ServeApplications, application_of

# Read where Ray and Serve's controller start: they must stand in the environment before `ray start` or `ray.init`.
THROUGHPUT_SWITCHES = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    # gRPC's own limit of 4 MiB lies below `max_body_bytes`, which bounds what comes in from outside.
    "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(2**31 - 1),
    **grpc_server.SWITCHES,
}
# Policy.kind -> class of its replicas, and what makes their engine where they take one. Imported when such a policy is
# bound: each needs libraries of its own.
REPLICAS: dict[str, tuple[str, ...]] = {
    "vllm": ("deployments.replicas.text:PolicyReplica", "deployments.engines.vllm.engine:VllmEngine"),
    "chunks": ("deployments.replicas.chunks:ChunkReplica", "deployments.engines.chunks.choice:chunk_engine"),
    "provider": ("deployments.replicas.provider:ProviderReplica",),
}
TINY_ROBOT = "tiny:robot"
LOGGING = LoggingConfig(enable_access_log=False)  # a record per request would cost every robot's every step
INGRESS_CALLS = 1024  # that an ingress works on at a time; as many may wait, what comes then is refused
STICKY_ROUTER = "ray.serve.experimental.consistent_hash_router:ConsistentHashRouter"


def build(args: Mapping[str, Any]) -> Application:
    """Serve's application builder. `args`: {"config": path of a YAML file} or a whole ServeConfig as a mapping."""
    if "config" in args:
        overrides = [f"{key}={value}" for key, value in args.items() if key != "config"]
        config = ServeConfig.load(args["config"], overrides)
    else:
        config = ServeConfig.parse(args)
    return bind(config)


def bind(config: ServeConfig) -> Application:
    """Deployments of a configuration, bound. Raises ConfigError for a model folder that cannot be served."""
    config = with_made_models(config)
    for policy in config.policies:
        _check_folder(policy)
    policies = {f"policy_{i}": _policy(policy) for i, policy in enumerate(config.policies)}
    ingress = serve.deployment(
        Ingress,
        name="ingress",
        logging_config=LOGGING,
        num_replicas=config.ingress_replicas,
        max_ongoing_requests=INGRESS_CALLS,
        max_queued_requests=INGRESS_CALLS,
        backpressure_config=BackpressureConfig(
            status_code=TABLE["overloaded"].http_status, retry_after_s=RETRY_AFTER_S
        ),
        ray_actor_options={"num_cpus": config.ingress_cpus},
    )
    storage_path = str(Path(config.storage_path).expanduser().resolve())
    manage = partial(ServeApplications, load=load_policy, storage_path=storage_path)
    return ingress.bind(config.dump(), manage if config.http.manage_policies else None, **policies)


def load_policy(policy: dict[str, Any], application: str, storage_path: str) -> str | None:
    """Has Serve start a policy as an application of its own, and does not wait for it. `policy`: as plain data. Why it
    cannot be served; None where Serve has begun."""
    try:
        asked = with_made_models(ServeConfig.parse({"policies": [policy], "storage_path": storage_path})).policies[0]
        _check_folder(asked)
    except ConfigError as error:
        return str(error)
    target = serve.RunTarget(_policy(asked, NO_INGRESS), name=application, route_prefix=None)
    serve.run_many([target], wait_for_applications_running=False)
    return None


def loaded_applications(app: str) -> list[str]:
    """The applications of the policies that were loaded into the application `app` and are not unloaded."""
    return [name for name in serve.status().applications if name.startswith(application_of(app, ""))]


def grpc_options(config: ServeConfig) -> gRPCOptions | None:
    """What Serve is started with so that robots can call it; None where no gRPC is configured."""
    return None if config.grpc is None else grpc_server.options(config.grpc)


def with_made_models(config: ServeConfig) -> ServeConfig:
    """The configuration with folders in place of the models that are made on the spot (`tiny:text`), which are made
    now where they are not there yet, and with what the environment says about models behind an API. Raises
    ConfigError."""
    storage = Path(config.storage_path) / "models"
    return config.model_copy(update={"policies": [_with_made_model(policy, storage) for policy in config.policies]})


def _with_made_model(policy: AnyPolicy, storage: Path) -> AnyPolicy:
    if isinstance(policy, PolicyConfig):
        return policy.model_copy(update={"model": tiny.made(policy.model, storage)})
    if isinstance(policy, ProviderPolicy):
        return with_environment(policy, os.environ)
    if not isinstance(policy, ChunkPolicy) or policy.checkpoint != TINY_ROBOT:
        return policy
    folder = storage.expanduser().resolve() / "tiny-robot"
    if not (folder / "model.safetensors").is_file():
        _imported("deployments.chunks.checkpoint:tiny_checkpoint")(folder)
    return policy.model_copy(update={"checkpoint": str(folder)})


def _check_folder(policy: AnyPolicy) -> None:
    problem = model_folder_error(policy.model) if isinstance(policy, PolicyConfig) else None
    if problem:
        raise ConfigError(f"policy {policy.name!r}: {problem}")


def _policy(policy: AnyPolicy, environment: Mapping[str, str] = MappingProxyType({})) -> Application:
    """`environment`: of its replicas, beside what the policy needs itself."""
    replicas = policy.replicas
    replica_class, *engine = map(_imported, REPLICAS[policy.kind])
    deployment = serve.deployment(
        replica_class,
        name=policy.name,
        logging_config=LOGGING,
        max_ongoing_requests=replicas.max_ongoing_requests,
        max_queued_requests=replicas.max_queued_requests,
        autoscaling_config=AutoscalingConfig(
            min_replicas=replicas.min_replicas,
            initial_replicas=max(replicas.min_replicas, 1),
            max_replicas=replicas.max_replicas,
            target_ongoing_requests=replicas.target_ongoing_requests,
            upscale_delay_s=replicas.upscale_delay_s,
            downscale_delay_s=replicas.downscale_delay_s,
        ),
        graceful_shutdown_timeout_s=replicas.drain_s,
        graceful_shutdown_wait_loop_s=0.5,
        health_check_period_s=replicas.health_period_s,
        health_check_timeout_s=replicas.health_timeout_s,
        request_router_config=RequestRouterConfig(request_router_class=STICKY_ROUTER),
        **_resources(policy, environment),
    )
    return deployment.bind(policy.model_dump(mode="json"), *engine)


def _imported(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _resources(policy: AnyPolicy, beside: Mapping[str, str]) -> dict[str, Any]:
    """What each replica reserves, and the environment of its process, as options of its deployment."""
    replicas, gpus = policy.replicas, _gpus(policy)
    environment = {**beside, **(process_environment(policy.engine) if isinstance(policy, PolicyConfig) else {})}
    environment.setdefault("OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", str(max(1, int(replicas.num_cpus)))))
    actor: dict[str, Any] = {
        "num_cpus": replicas.num_cpus,
        "resources": replicas.resources,
        "runtime_env": {"env_vars": environment, **_own_environment(policy)},
    }
    if gpus <= 1:
        return {"ray_actor_options": actor | ({"num_gpus": _share(policy)} if gpus else {})}
    # One placement group per replica: vLLM's workers live in its bundles. It cannot grow, so it holds all of them.
    one_node = isinstance(policy, PolicyConfig) and policy.engine.pipeline_parallel_size == 1
    return {
        "ray_actor_options": actor | {"num_gpus": 0},
        "placement_group_bundles": [
            {"CPU": replicas.num_cpus, "GPU": 1, **replicas.resources},
            *[{"GPU": 1, "CPU": 1} for _ in range(gpus - 1)],
        ],
        "placement_group_strategy": "STRICT_PACK" if one_node else "PACK",
    }


def _own_environment(policy: AnyPolicy) -> dict[str, Any]:
    """Packages or the interpreter of the replicas alone, in the terms of Ray's runtime environments."""
    return policy.runtime_env.model_dump(exclude_defaults=True) if isinstance(policy, ChunkPolicy) else {}


def _share(policy: AnyPolicy) -> float:
    """Of its one GPU."""
    return policy.engine.gpu_share if isinstance(policy, PolicyConfig) else 1.0


def _gpus(policy: AnyPolicy) -> int:
    """GPUs of one replica."""
    match policy:
        case PolicyConfig():
            return policy.engine.gpus if on_gpu(policy.engine) else 0
        case ChunkPolicy():
            return int(on_gpu(policy))
        case _:
            return 0
