"""GRPO through served replicas: `python -m training.grpo --config configs/train/NAME.yaml`.

The loop of one training process is `train_loop`; everything around it (Serve application, coordinator, worker group) is
in `train`.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from configs.base import ConfigError
from configs.training import TrainConfig
from deployments.storage import runs
from deployments.weights.store import WeightStore
from training.cluster import application, placement, ports, ray_session
from training.cluster.application import APPLICATION
from training.imitation import tiny
from training.rollouts.coordinator import Coordinator
from training.rollouts.group import RolloutFailed
from training.tracking.monitors import Monitors

logger = logging.getLogger("rayward")


class TrainingFailed(RuntimeError):
    """The run ended before its last step; the message names the cause and how to resume."""


def train_loop(settings: dict[str, Any]) -> None:
    """One training process. Consumes: batches of the coordinator. Waits for: the step's groups. Unblocked by: their
    completion or RolloutFailed. Stops when: `steps` are done; a checkpoint lets another process go on from there."""
    run = TrainingProcess(settings)
    for step in range(run.start(), run.config.steps):
        began = time.perf_counter()
        batch = run.next_batch(step)
        metrics = run.update(batch)
        metrics |= run.publish(step + 1)
        metrics |= run.maybe_evaluate(step + 1)
        run.log(step, metrics | {"train/step_s": time.perf_counter() - began})
        run.maybe_checkpoint(step + 1)
    run.finish()


class TrainingProcess:
    """What `train_loop` needs, one named step a method. One per rank; rank 0 publishes, logs and commits."""

    def __init__(self, settings: dict[str, Any]) -> None:
        import torch
        from ray import train as ray_train

        from training.learner.learner import Learner

        self.config = TrainConfig.model_validate(settings["config"])
        self.folder = runs.RunFolder(Path(settings["run"]))
        self.base_version: int = settings["base_version"]
        self.coordinator = settings["coordinator"]
        model = Path(settings["model"])
        self.live = Session(
            self.config, self.folder, model, settings["weights_root"], self.coordinator, settings["app"]
        )
        context = ray_train.get_context()
        self.rank, self.world = context.get_world_rank(), context.get_world_size()
        torch.set_num_threads(self._threads())
        self.learner = Learner(
            model=self.config.model,
            optimizer=self.config.optimizer,
            algorithm=self.config.algorithm,
            learner=self.config.learner,
            model_folder=str(model),
            temperature=self.config.sampling.temperature,
            total_steps=self.config.steps,
            rank=self.rank,
            world=self.world,
            seed=self.config.seed,
        )
        self.store = self.live.store
        dtype = torch.bfloat16 if self.config.model.dtype == "bfloat16" else None
        self.publisher = self._publisher(settings["app"], dtype)
        self.monitors: Monitors | None = None

    def _threads(self) -> int:
        """Ray sets OMP_NUM_THREADS to an actor's logical CPUs, which are few on purpose; in its turn the learner
        has the whole machine, shared with the other ranks on it."""
        from ray import train as ray_train

        cores = len(os.sched_getaffinity(0))
        return self.config.learner.torch_threads or max(1, cores // ray_train.get_context().get_local_world_size())

    def _publisher(self, app: str, dtype: Any) -> Any:
        """Into the store; with transport nccl or ipc also pushed to the replicas that are up."""
        from ray import serve

        from deployments.weights.publishers import StorePublisher
        from deployments.weights.push import IpcPublisher, NcclPublisher, ServeControl
        from deployments.weights.store_then_push import StoreThenPush

        transport = self.config.weights.transport
        if transport == "store":
            return StorePublisher(self.store, rank=self.rank, dtype=dtype)
        control = ServeControl(serve.get_deployment_handle(self.config.serving.policy, app))

        def make(replicas: int) -> Any:
            if transport == "ipc":
                return IpcPublisher(control)
            workers = replicas * self.config.serving.engine.gpus
            return NcclPublisher(control, workers, ray.util.get_node_ip_address(), ports.free_port())

        return StoreThenPush(StorePublisher(self.store), control, make, self.rank, dtype)

    def start(self) -> int:
        """Restores the newest checkpoint if there is one; returns the first step to do."""
        from training.learner.learner import checkpoint

        latest = checkpoint.latest(self.folder.checkpoints)
        step, waiting = 0, []
        if latest is not None:
            state = checkpoint.restore(latest, self.learner, rank=self.rank)
            step, waiting = state["step"], state["waiting"]
        self.base_version, fresh = self._versions(step)
        if not fresh:
            self.publisher.publish(self.base_version + step, self.learner.state_dict())
        if self.rank == 0:
            self.monitors = Monitors(self.config, self.folder.path, step)
            ray.get(self.coordinator.begin.remote(step, self.base_version, waiting, str(self.folder.episodes)))
        self._barrier()
        return step

    def _versions(self, step: int) -> tuple[int, bool]:
        """(version of step 0, whether the replicas surely hold this step's weights: only those that nobody published to
        yet do). Versions only grow: what is played again after a restart, or by another run on the same replicas, gets
        numbers above all that were published before. Agreed by rank 0."""
        import torch.distributed as dist

        latest, expected = self.store.latest(), self.base_version + step
        if expected == 0 and latest is None:
            agreed: list[Any] = [self.base_version, True]
        else:
            agreed = [max(expected, (latest or 0) + 1) - step, False]
        if self.world > 1:
            dist.broadcast_object_list(agreed, src=0)
        return agreed[0], agreed[1]

    def _barrier(self) -> None:
        import torch.distributed as dist

        if dist.is_available() and dist.is_initialized() and self.world > 1:
            dist.barrier()

    def next_batch(self, step: int) -> Any:
        try:
            return ray.get(self.coordinator.next_batch.remote(step, self.rank, self.world))
        except ray.exceptions.RayTaskError as error:
            raise (error.cause if isinstance(error.cause, RolloutFailed) else error) from None

    def update(self, batch: Any) -> dict[str, float]:
        began = time.perf_counter()
        metrics = self.learner.update(batch)
        return {**batch.metrics, **metrics, "train/update_s": time.perf_counter() - began}

    def publish(self, step: int) -> dict[str, float]:
        began = time.perf_counter()
        self.publisher.publish(self.base_version + step, self.learner.state_dict())
        return {"train/publish_s": time.perf_counter() - began}

    def maybe_evaluate(self, step: int) -> dict[str, float]:
        """Held-out results of exactly this step's weights: nothing newer is published before they are there."""
        every = self.config.evaluation.every_steps
        if self.rank or not every or (step % every and step != self.config.steps):
            return {}
        from training.evaluate import evaluate

        result = evaluate(self.live, f"step {step}", self.base_version + step)
        return {"eval/success": result.success.value, "eval/return": result.mean_return.value}

    def log(self, step: int, metrics: dict[str, float]) -> None:
        if self.monitors is not None:
            ray.get(self.coordinator.published.remote(self.base_version + step + 1, metrics))
            self.monitors.log(step, metrics)

    def maybe_checkpoint(self, step: int) -> None:
        every = self.config.checkpoint.every_steps
        if step == self.config.steps or (every and step % every == 0):
            self.checkpoint(step)

    def checkpoint(self, step: int) -> None:
        from training.learner.learner import checkpoint

        state = {"step": step, "waiting": []}
        if self.rank == 0:
            state |= ray.get(self.coordinator.state.remote())
        checkpoint.write(
            self.folder.checkpoints, step, self.learner, state, keep=self.config.checkpoint.keep, rank=self.rank
        )
        self._barrier()

    def finish(self) -> None:
        self.learner.save_model(self.folder.final_model)
        if self.monitors is not None:
            self.monitors.close()


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
    root = run.weights_root(config)
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


def train(live: Session, report: Callable[[int, dict[str, float]], None] | None = None, base_version: int = 0) -> None:
    """Runs GRPO to the last step. `report(step, metrics)` is called for each finished step. Raises TrainingFailed."""
    for step, metrics in train_steps(live, base_version):
        if report is not None:
            report(step, metrics)


def train_steps(live: Session, base_version: int = 0) -> Iterator[tuple[int, dict[str, float]]]:
    """GRPO to the last step, in processes that do not wait for the caller: yields (step, metrics) of each finished one.
    Raises TrainingFailed."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    config = live.config
    learner = config.learner
    on_gpu = learner.gpus_per_worker > 0
    resources = {"CPU": learner.cpus_per_worker, **learner.resources}
    if on_gpu:
        resources["GPU"] = learner.gpus_per_worker
    trainer = TorchTrainer(
        train_loop,
        train_loop_config={
            "config": config.dump(),
            "run": str(live.run.path),
            "model": str(live.model),
            "weights_root": live.weights_root,
            "base_version": base_version,
            "coordinator": live.coordinator,
            "app": live.app,
        },
        scaling_config=ScalingConfig(num_workers=learner.workers, use_gpu=on_gpu, resources_per_worker=resources),
        torch_config=TorchConfig(backend="nccl" if on_gpu else "gloo"),
        run_config=RunConfig(
            name="ray_train",
            storage_path=str(live.run.path),
            failure_config=FailureConfig(max_failures=learner.restarts),
        ),
    )
    outcome: list[BaseException] = []

    def fit() -> None:
        try:
            trainer.fit()
        except BaseException as error:  # carried to the caller's thread
            outcome.append(error)

    thread = threading.Thread(target=fit, name="ray-train", daemon=True)
    thread.start()
    done, heard = 0, time.monotonic()
    while True:
        thread.join(timeout=0.3)
        ended = not thread.is_alive()
        rows = ray.get(live.coordinator.progress.remote(done))
        yield from enumerate(rows, start=done)
        done += len(rows)
        if rows:
            heard = time.monotonic()
        elif time.monotonic() - heard > config.tracking.stalled_after_s:
            heard = time.monotonic()
            waits = _waits(live.coordinator)
            logger.warning("no step for %g s: %s", config.tracking.stalled_after_s, waits)
        if ended:
            break
    if outcome:
        raise TrainingFailed(
            f"training stopped: {root_cause(outcome[0])}\nresume with: rayward train --resume {live.run.path}"
        ) from outcome[0]


def _waits(coordinator: Any) -> str:
    try:
        return str(ray.get(coordinator.waits_for.remote(), timeout=5.0))
    except ray.exceptions.GetTimeoutError:
        return "the coordinator does not answer"


def root_cause(error: BaseException) -> str:
    """The innermost message, without the layers that carried it."""
    failures = getattr(error, "worker_failures", None)
    if failures:
        error = next(iter(failures.values()))
    while True:
        inner = getattr(error, "cause", None) or error.__cause__
        if inner is None or inner is error:
            break
        error = inner
    return f"{type(error).__name__}: {error}"


def start_model(config: TrainConfig, run: runs.RunFolder, report: Any = None) -> Path:
    """The policy that the run starts from: built or given, then warm-started if configured. Raises ConfigError."""
    if config.model.source == "tiny":
        model = tiny.build(config.model.tiny, config.env, config.seed, run.path / "models" / "init")
    else:
        problem = application.model_folder_error(config.model.source)
        if problem:
            raise ConfigError(f"model.source: {problem}")
        model = Path(config.model.source)
    if config.warmstart.enabled:
        from training.imitation.sft import warmstart

        warmstart(config, model, run.start_model, report)
        return run.start_model
    return model


def main() -> None:
    from training.cli import run_train_module

    run_train_module()


if __name__ == "__main__":
    main()
