"""The one place where deployments are bound: `serve run deployments.app:build config=configs/serve/NAME.yaml`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig, RequestRouterConfig

from configs.base import ConfigError
from configs.policies import PolicyConfig
from configs.serving import ServeConfig
from deployments.engines.base import StartTokenEngine
from deployments.engines.vllm.engine import VllmEngine
from deployments.engines.vllm.settings import on_gpu, process_environment
from deployments.replicas.text import PolicyReplica
from deployments.storage.models import model_folder_error
from deployments.transports.http.ingress import Ingress

# Read where Ray and Serve's controller start: they must stand in the environment before `ray start` or `ray.init`.
THROUGHPUT_SWITCHES = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    # gRPC's own limit of 4 MiB lies below `max_body_bytes`, which bounds what comes in from outside.
    "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(2**31 - 1),
}
ENGINES: dict[str, StartTokenEngine] = {"vllm": VllmEngine}  # PolicyConfig.kind -> what makes its engine
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
    for policy in config.policies:
        problem = model_folder_error(policy.model)
        if problem:
            raise ConfigError(f"policy {policy.name!r}: {problem}")
    policies = {f"policy_{i}": _policy(policy) for i, policy in enumerate(config.policies)}
    ingress = serve.deployment(
        Ingress,
        name="ingress",
        num_replicas=config.ingress_replicas,
        max_ongoing_requests=1024,
        ray_actor_options={"num_cpus": config.ingress_cpus},
    )
    return ingress.bind(config.dump(), **policies)


def _policy(policy: PolicyConfig) -> Application:
    replicas, engine = policy.replicas, policy.engine
    environment = process_environment(engine)
    environment.setdefault("OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", str(max(1, int(replicas.num_cpus)))))
    options: dict[str, Any] = {}
    actor: dict[str, Any] = {
        "num_cpus": replicas.num_cpus,
        "resources": replicas.resources,
        "runtime_env": {"env_vars": environment},
    }
    if on_gpu(engine) and engine.gpus > 1:
        # One placement group per replica: vLLM's workers live in its bundles. It cannot grow, so it holds all of them.
        actor["num_gpus"] = 0
        options["placement_group_bundles"] = [
            {"CPU": replicas.num_cpus, "GPU": 1, **replicas.resources},
            *[{"GPU": 1, "CPU": 1} for _ in range(engine.gpus - 1)],
        ]
        options["placement_group_strategy"] = "STRICT_PACK" if engine.pipeline_parallel_size == 1 else "PACK"
    elif on_gpu(engine):
        actor["num_gpus"] = 1
    deployment = serve.deployment(
        PolicyReplica,
        name=policy.name,
        ray_actor_options=actor,
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
        **options,
    )
    return deployment.bind(policy.model_dump(mode="json"), ENGINES[policy.kind])
