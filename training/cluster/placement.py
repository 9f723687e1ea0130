"""Who runs where, and whether the cluster has what that needs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from configs.replicas import EngineConfig
from configs.training import TrainConfig
from training.cluster.errors import ClusterError

INGRESS_CPUS, COORDINATOR_CPUS = 0.1, 0.1


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
    from deployments.engines.vllm.settings import on_gpu

    learner, replicas, engine = config.learner, config.serving.replicas, config.serving.engine
    gpus = engine.reserved_gpus if on_gpu(engine) else 0
    first = max(replicas.min_replicas, 1)
    serving = [
        Role("policy replica", first, replicas.max_replicas, replicas.num_cpus, gpus, replicas.resources),
        Role("ingress", 1, 1, INGRESS_CPUS),
    ]
    if config.self_play.past_share:
        serving.append(Role("replica of past versions", 1, 1, replicas.num_cpus, gpus, replicas.resources))
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


def engine_dtype(engine: EngineConfig) -> str:
    """The type that a replica computes in. "auto" is float32 on a CPU, and counts as bfloat16 on a GPU."""
    from deployments.engines.vllm.settings import on_gpu

    if engine.dtype != "auto":
        return engine.dtype
    return "bfloat16" if on_gpu(engine) else "float32"


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
