"""A running application with a run's coordinator: what training and evaluation play on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from configs.training import TrainConfig
from deployments.storage import owned, runs
from deployments.storage.tensors import weight_bytes
from deployments.weights.space import check_room
from deployments.weights.store import WeightStore
from training.cluster import application, memory, placement, ray_session
from training.cluster.application import APPLICATION
from training.rollouts.coordinator import Coordinator


@dataclass(frozen=True)
class Session:
    """A running application with its coordinator, for training and evaluation on the same replicas."""

    config: TrainConfig
    run: runs.RunFolder
    model: Path
    weights_root: str
    coordinator: Any
    app: str = APPLICATION

    @property
    def store(self) -> WeightStore:
        return WeightStore(self.weights_root, keep=self.config.weights.keep)


@contextmanager
def session(
    config: TrainConfig, run: runs.RunFolder, model: Path, name: str = APPLICATION, route: str = "/"
) -> Iterator[Session]:
    """Starts the application `name` around `model` (or joins the configured one) and the run's coordinator; ends both.
    Several sessions on one cluster need different names and routes."""
    owned.take_back()
    root = run.weights_root(config)
    readers = config.serving.replicas.max_replicas
    if config.check_memory and ray_session.starts_here():
        memory.check(memory.of_training(config, model, learns=False))
    check_room(root, weight_bytes(model, config.model.dtype), config.weights.keep, readers)
    with ExitStack() as stack:
        if stack.enter_context(ray_session.ray_session()):
            placement.check_fits(config)
        stack.callback(runs.remove_weights, root)
        app = config.serving.connect or name
        if config.serving.connect is None:
            stack.enter_context(
                application.application(application.serve_config(config, str(model), root, name, route))
            )
        yield stack.enter_context(another_run(config, run, model, root, app))


@contextmanager
def another_run(
    config: TrainConfig, run: runs.RunFolder, model: Path, weights_root: str, app: str = APPLICATION
) -> Iterator[Session]:
    """A run with a coordinator of its own on replicas that are up. Its policy has the architecture that they serve;
    they take up its weights with its first version."""
    # "DEFAULT": not inside the placement group of the caller, where a trial of a sweep has one without room for it.
    options = Coordinator.options(  # type: ignore[attr-defined]
        num_cpus=placement.COORDINATOR_CPUS, max_concurrency=1000, scheduling_strategy="DEFAULT"
    )
    coordinator = options.remote(config.dump(), str(model), app)
    try:
        yield Session(config, run, model, weights_root, coordinator, app)
    finally:
        ray.kill(coordinator)
