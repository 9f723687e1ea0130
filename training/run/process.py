"""One training process: what each step of the loop does."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray

from configs.training import TrainConfig
from deployments.storage import runs
from training.cluster import ports
from training.rollouts.batch import Share, assemble
from training.rollouts.group import EnvironmentFailed, RolloutFailed
from training.rollouts.session import Session
from training.tracking.monitors import Monitors


def lost_groups(share: Share) -> list[int]:
    """The groups of a share whose tokens cannot be fetched any more."""
    lost = []
    for group, reference in share.samples.items():
        try:
            ray.get(reference)
        except ray.exceptions.ObjectLostError:
            lost.append(group)
    return lost


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
        from training.learner import checkpoint

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

    @contextmanager
    def told_once(self) -> Iterator[None]:
        """An environment that fails is told to the driver, not raised: Ray Train would start every process again, only
        to play the same seeds to the same failure."""
        try:
            yield
        except EnvironmentFailed as error:
            cause = getattr(error, "cause", error)  # Ray's error of an evaluation has the environment's inside
            ray.get(self.coordinator.give_up.remote(f"EnvironmentFailed: {cause}"))

    def next_batch(self, step: int) -> Any:
        """This rank's batch. Tokens that were lost with a node are played again; with several ranks, which have agreed
        on the batch already, the loss ends the processes and the newest checkpoint is taken up."""
        for _ in range(self.config.rollout.max_retries):
            share = self._share(step)
            try:
                return assemble(share, ray.get)
            except ray.exceptions.ObjectLostError:
                if self.world > 1:
                    raise
                ray.get(self.coordinator.replay.remote(step, lost_groups(share)))
        return assemble(self._share(step), ray.get)

    def _share(self, step: int) -> Share:
        try:
            share: Share = ray.get(self.coordinator.next_batch.remote(step, self.rank, self.world))
        except ray.exceptions.RayTaskError as error:
            raise (error.cause if isinstance(error.cause, RolloutFailed) else error) from None
        return share

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
        from training.evaluation.evaluate import evaluate

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
        from training.learner import checkpoint

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
