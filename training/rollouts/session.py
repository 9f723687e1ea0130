"""A running application with a run's coordinator: what training and evaluation play on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from configs.policies import PolicyConfig
from configs.training import TrainConfig
from deployments.storage import owned, runs
from deployments.storage.ownership import owned_by_us
from deployments.storage.tensors import weight_bytes
from deployments.weights.space import check_room
from deployments.weights.store import WeightStore
from training.cluster import application, memory, placement, ray_session
from training.cluster.application import APPLICATION
from training.cluster.errors import ClusterError
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
    holds_start: bool = False  # the replicas were started with `model`; False: they may hold any weights

    @property
    def store(self) -> WeightStore:
        return WeightStore(self.weights_root, keep=self.config.weights.keep)

    @property
    def past_store(self) -> WeightStore:
        """Of the replica that plays with past versions."""
        return WeightStore(application.past_root(self.weights_root), keep=2)


@contextmanager
def open_session(
    config: TrainConfig, run: runs.RunFolder, model: Path, name: str | None = None, route: str | None = None
) -> Iterator[Session]:
    """Starts an application around `model` (or joins the configured one) and the run's coordinator; ends both.

    An application belongs to one run. On a Ray of our own it is `rayward` at the route `/`; on a cluster that others
    use, too, it has the run's id as `name` and `/{name}` as `route`. Raises ClusterError, and RunInUse for a weight
    store that another run publishes to."""
    owned.take_back()
    root = run.weights_root(config)
    readers = config.serving.replicas.max_replicas
    if config.check_memory and ray_session.starts_here():
        memory.check(memory.of_training(config, model, learns=False))
    check_room(root, weight_bytes(model, config.model.dtype), config.weights.keep, readers)
    joined = config.serving.connect
    if joined is None:
        application.check_servable(application.policy_config(config, str(model), root))
    with ExitStack() as stack:
        own_ray = stack.enter_context(ray_session.ray_session())
        if own_ray:
            placement.check_fits(config)
        if config.weights.root is None:
            stack.callback(runs.remove_weights, root)
        else:  # it stays
            stack.enter_context(store_of_ours(root))
        if config.self_play.past_share:
            stack.callback(WeightStore(application.past_root(root)).destroy)
        if joined is not None:
            served = application.served_policy(joined, config.serving.policy)
            yield stack.enter_context(join_session(as_served(config, served, root), run, model, root, joined))
            return
        name = name or (APPLICATION if own_ray else run.path.name)
        route = route or ("/" if own_ray else f"/{name}")
        if not own_ray:  # only a killed process of this very run can have left one: the run folder is ours
            application.delete_application(name)
        stack.enter_context(application.application(application.serve_config(config, str(model), root, name, route)))
        yield stack.enter_context(join_session(config, run, model, root, name, holds_start=True))


@contextmanager
def store_of_ours(root: str, deadline_s: float = 45.0) -> Iterator[None]:
    """Two runs that published to one store would train on each other's policy. Waits at most `deadline_s` for the end
    of the other one. Raises RunInUse. Behind a URI there is no lock: there the second one's first version is refused,
    because it does not follow the latest."""
    if "://" in root:
        yield
        return
    folder = Path(root)
    folder.mkdir(parents=True, exist_ok=True)
    with owned_by_us(folder, deadline_s):
        yield


def as_served(config: TrainConfig, served: PolicyConfig, root: str) -> TrainConfig:
    """The configuration of a run on replicas that it joins: their number and their engine are what is served, not what
    the run would start. Raises ClusterError when they would never see the run's weights."""
    if served.weights_root is None or _place(served.weights_root) != _place(root):
        raise ClusterError(
            f"the application {config.serving.connect!r} takes its weights from {served.weights_root!r}, and this run "
            f"publishes to {root!r}: set weights.root of the run, and weights_root of the served policy "
            f"{served.name!r}, to the same place"
        )
    serving = config.serving.model_copy(update={"replicas": served.replicas, "engine": served.engine})
    return config.model_copy(update={"serving": serving})


def _place(root: str) -> str:
    return root.rstrip("/") if "://" in root else str(Path(root).expanduser().resolve())


@contextmanager
def join_session(
    config: TrainConfig,
    run: runs.RunFolder,
    model: Path,
    weights_root: str,
    app: str = APPLICATION,
    holds_start: bool = False,
) -> Iterator[Session]:
    """A run with a coordinator of its own on replicas that are up. Its policy has the architecture that they serve;
    they take up its weights with its first version (`holds_start`: they have them)."""
    # "DEFAULT": not inside the placement group of the caller, where a trial of a sweep has one without room for it.
    options = Coordinator.options(  # type: ignore[attr-defined]
        num_cpus=placement.COORDINATOR_CPUS, max_concurrency=1000, scheduling_strategy="DEFAULT"
    )
    coordinator = options.remote(config.dump(), str(model), app)
    try:
        yield Session(config, run, model, weights_root, coordinator, app, holds_start)
    finally:
        ray.kill(coordinator)
