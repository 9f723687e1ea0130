"""One training process: what each step of the loop does."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import ray

from training.checks.agreement import Tolerance
from training.checks.alarms import Alarm, FaultFound
from training.checks.batches import advantages_alarm, step_alarm
from training.checks.failures import EnvironmentFailed, RolloutFailed
from training.checks.updates import update_alarms
from training.cluster import placement, ports
from training.rollouts.batch import Share, assemble, earned, fetched, given
from training.rollouts.session import Session
from training.run.past import PastVersions
from training.tracking.monitors import Monitors
from training.types import Batch

logger = logging.getLogger("rayward")


def lost_groups(share: Share) -> list[int]:
    """The groups of a share whose tokens cannot be fetched any more."""
    lost = []
    for group, reference in share.samples.items():
        try:
            ray.get(reference)
        except ray.exceptions.ObjectLostError:
            lost.append(group)
    return lost


@dataclass(frozen=True)
class RunSettings:
    """What each training process is given. It travels to other machines: all of it pickles."""

    session: Session
    base_version: int = 0  # weight version of the start model, where the replicas hold one already


@dataclass(frozen=True)
class Place:
    """Which of the training processes one is."""

    rank: int = 0
    world: int = 1  # how many there are
    on_machine: int = 1  # of them on this machine


@dataclass(frozen=True)
class FirstVersion:
    """With which weight version a run (re)starts its stream of steps."""

    base: int  # the version of step 0: step n is version base + n
    publish: bool  # whether the replicas must be given this step's weights before anything is played


def first_version(step: int, base: int, latest: int | None, replicas_hold_start: bool) -> FirstVersion:
    """`latest`: the newest version in the store. Versions only grow: what is played again after a restart, or by
    another run on the same replicas, gets numbers above all that were published before. Nothing need be published only
    at the first step of a run whose replicas were started with its start model and were given nothing since: replicas
    that were joined serve some other weights."""
    expected = base + step
    if expected == 0 and latest is None and replicas_hold_start:
        return FirstVersion(base, publish=False)
    return FirstVersion(max(expected, (latest or 0) + 1) - step, publish=True)


class TrainingProcess:
    """What `train_loop` needs: each step of the loop is a method. One per rank; rank 0 publishes, logs and commits."""

    def __init__(self, settings: RunSettings, place: Place) -> None:
        import torch

        from training.learner.learner import Learner
        from training.learner.settings import LearnerSettings

        self.session = settings.session
        self.config, self.folder = self.session.config, self.session.run
        self.coordinator = self.session.coordinator
        self.base_version = settings.base_version
        self.rank, self.world = place.rank, place.world
        torch.set_num_threads(self._threads(place))
        self.learner = Learner(LearnerSettings.of(self.config, self.session.model), self.rank, self.world)
        self.store = self.session.store
        dtype = torch.bfloat16 if self.config.model.dtype == "bfloat16" else None
        self.publisher = self._publisher(self.session.app, dtype)
        self.past = self._past_versions() if self.config.self_play.past_share and self.rank == 0 else None
        self.monitors: Monitors | None = None
        engine = placement.engine_dtype(self.config.serving.engine)
        self.tolerance = Tolerance.between(engine, self.config.model.dtype)

    def _threads(self, place: Place) -> int:
        """Ray sets OMP_NUM_THREADS to an actor's logical CPUs, which are few on purpose; in its turn the learner
        has the whole machine, shared with the other ranks on it."""
        cores = len(os.sched_getaffinity(0))
        return self.config.learner.torch_threads or max(1, cores // place.on_machine)

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

    def _past_versions(self) -> PastVersions:
        goes_back = self.config.checkpoint.every_steps or self.config.steps
        kept, served = self.folder.path / "past", self.session.past_store
        return PastVersions(self.config.self_play, self.config.seed, kept, goes_back, self.store, served)

    def start(self) -> int:
        """Restores the newest checkpoint if there is one; returns the first step to do."""
        from training.learner import checkpoint

        latest = checkpoint.latest(self.folder.checkpoints)
        step, waiting, achieved = 0, [], {}
        if latest is not None:
            state = checkpoint.restore(latest, self.learner, rank=self.rank)
            step, waiting, achieved = state["step"], state["waiting"], state.get("achieved", {})
        first = self._agreed(first_version(step, self.base_version, self.store.latest(), self.session.holds_start))
        self.base_version = first.base
        if first.publish:
            self.publisher.publish(self.base_version + step, self.learner.state_dict())
        if self.rank == 0:
            self.monitors = Monitors(self.config, self.folder.path, step)
            past = self.past.begin(step, self.session.model) if self.past is not None else None
            episodes = str(self.folder.episodes)
            ray.get(self.coordinator.begin.remote(step, self.base_version, waiting, episodes, past, achieved))
        self._barrier()
        return step

    def _agreed(self, first: FirstVersion) -> FirstVersion:
        """Rank 0's: another rank may read the store when rank 0 has published already."""
        import torch.distributed as dist

        agreed = [first]
        if self.world > 1:
            dist.broadcast_object_list(agreed, src=0)
        return agreed[0]

    def _barrier(self) -> None:
        import torch.distributed as dist

        if dist.is_available() and dist.is_initialized() and self.world > 1:
            dist.barrier()

    @contextmanager
    def told_once(self) -> Iterator[None]:
        """An environment that fails, or a check that raises an alarm, is told to the driver, not raised: Ray Train
        would start every process again, only to play the same seeds to the same failure."""
        try:
            yield
        except EnvironmentFailed as error:
            cause = getattr(error, "cause", error)  # Ray's error of an evaluation has the environment's inside
            ray.get(self.coordinator.give_up.remote(f"EnvironmentFailed: {cause}"))
        except FaultFound as error:
            if self.rank == 0:
                ray.get(self.coordinator.give_up.remote(str(getattr(error, "cause", error))))

    def next_batch(self, step: int) -> Batch:
        """This rank's batch. Tokens that were lost with a node are played again; with several ranks, which have agreed
        on the batch already, the loss ends the processes and the newest checkpoint is taken up."""
        for _ in range(self.config.rollout.max_retries):
            share = self._share(step)
            try:
                return self._assembled(share)
            except ray.exceptions.ObjectLostError:
                if self.world > 1:
                    raise
                ray.get(self.coordinator.replay.remote(step, lost_groups(share)))
        return self._assembled(self._share(step))

    def _assembled(self, share: Share) -> Batch:
        packed = fetched(share, ray.get)
        expected = earned(share, packed, self.config.algorithm)
        alarms = self._judged(self._of_all_ranks(advantages_alarm(given(share), expected)))
        batch = assemble(share, packed)
        return replace(batch, metrics={**batch.metrics, "train/alarms_total": alarms})

    def _of_all_ranks(self, alarm: Alarm | None) -> list[Alarm | None]:
        """Of this rank's own numbers: the others must end with it, or they would wait for it for ever."""
        import torch.distributed as dist

        alarms = [alarm] * self.world
        if self.world > 1:
            dist.all_gather_object(alarms, alarm)
        return alarms

    def _judged(self, found: Iterable[Alarm | None]) -> float:
        """Raises FaultFound for the first alarm, or warns of each and returns how many, as `on_alarm` says."""
        alarms = [alarm for alarm in found if alarm is not None]
        if alarms and self.config.on_alarm == "end":
            raise FaultFound(alarms[0])
        for alarm in alarms:
            logger.warning("%s", alarm)
        return float(len(alarms))

    def _share(self, step: int) -> Share:
        try:
            share: Share = ray.get(self.coordinator.next_batch.remote(step, self.rank, self.world))
        except ray.exceptions.RayTaskError as error:
            raise (error.cause if isinstance(error.cause, RolloutFailed) else error) from None
        return share

    def update(self, batch: Batch) -> dict[str, float]:
        began = time.perf_counter()
        alarms = self._judged([step_alarm(batch.step, self.learner.steps_done)])
        metrics = {**batch.metrics, **self.learner.update(batch)}
        if self.learner.record is not None:
            alarms += self._judged(update_alarms(self.learner.record, self.tolerance))
        metrics["train/alarms_total"] += alarms
        return {**metrics, "train/update_s": time.perf_counter() - began}

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

        result = evaluate(self.session, f"step {step}", self.base_version + step)
        return {"eval/success": result.success.value, "eval/return": result.mean_return.value}

    def announce(self, step: int) -> None:
        """Lets those rollouts start that waited for this step's weights. In self-play the next opponent is there
        before."""
        if self.rank == 0:
            version = self.base_version + step
            past = self.past.after(step, version) if self.past is not None else None
            ray.get(self.coordinator.published.remote(version, past))

    def log(self, step: int, metrics: dict[str, float]) -> None:
        if self.monitors is not None:
            self.monitors.log(step, metrics)
            ray.get(self.coordinator.finished.remote(step, metrics))

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
