"""Rollout workers that are replaced when they die or hang."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import (
    GetTimeoutError,
    LocalRayletDiedError,
    NodeDiedError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    RayTaskError,
    WorkerCrashedError,
)

from configs.training import TrainConfig
from training.checks.failures import EnvironmentFailed, RolloutFailed
from training.rollouts.packed import PlayedGroup
from training.types import Task

logger = logging.getLogger("rayward")
WORKER_GONE = (RayActorError, NodeDiedError, OutOfMemoryError, WorkerCrashedError, LocalRayletDiedError)


class WorkerPool:
    """Rollout workers that are replaced when they die or hang; a group is played until one worker delivers it."""

    def __init__(self, config: TrainConfig, start: Callable[[], Any]) -> None:
        """`start` makes a worker: an actor handle with RolloutWorker's methods."""
        self._config, self._start = config, start
        self._workers = [start() for _ in range(config.rollout.workers)]
        self._turn = 0
        self._hung: dict[Any, str] = {}
        self.counts: Counter[str] = Counter()

    async def play(
        self,
        task: Task,
        group_size: int,
        min_weight_version: int,
        *,
        evaluation: bool = False,
        history: str = "",
        keep_episodes: bool = False,
        past_version: int | None = None,
    ) -> PlayedGroup:
        """Plays one group on any worker, and on another one if that is lost: whatever Ray loses is played again and
        counted by the kind of the loss. Raises RolloutFailed with the named cause."""
        losses: Counter[str] = Counter()
        tries = self._config.rollout.max_retries + 1
        last: RayError | None = None
        hangs = 0
        for attempt in range(tries):
            slot = self._turn = (self._turn + 1) % len(self._workers)
            worker = self._workers[slot]
            try:
                summary, samples, episodes = await _played(
                    worker, task, group_size, min_weight_version, evaluation, history, keep_episodes, past_version
                )
            except RayError as error:
                last = _loss(error, task)
            else:
                counts = Counter(summary.counts) + losses
                return PlayedGroup(replace(summary, counts=counts), samples, episodes if keep_episodes else None)
            losses[f"groups_replayed_{type(last).__name__}"] += 1
            self.counts[f"groups_replayed_{type(last).__name__}"] += 1
            if isinstance(last, WORKER_GONE):
                self._replace(slot, worker)
                hangs += worker in self._hung
                if hangs == 2:
                    raise EnvironmentFailed(f"the environment hung twice: {self._hung[worker]}")
            else:
                await asyncio.sleep(min(self._config.rollout.retry_backoff_s * 2**attempt, 10.0))
        raise RolloutFailed(f"{task}: lost in each of {tries} tries; the last time: {type(last).__name__}: {last}")

    def _replace(self, slot: int, worker: Any) -> None:
        if self._workers[slot] is worker:  # the first who notices replaces it
            self._workers[slot] = self._start()
            self.counts["workers_replaced"] += 1
            logger.warning("rollout worker %d was lost; a new one takes over its groups", slot)

    async def watch(self) -> None:
        """Kills a worker whose environment hangs. Waits for: nothing but the clock. Stops when: cancelled."""
        period_s = min(5.0, self._config.env.step_timeout_s / 2)
        while True:
            await asyncio.sleep(period_s)
            for worker in list(self._workers):
                try:
                    stuck = await asyncio.wait_for(_awaited(worker.stuck.remote()), timeout=period_s + 10)
                except (TimeoutError, RayError):
                    continue  # a dead worker is noticed by whoever plays on it
                if stuck:
                    logger.error("killing a rollout worker: %s", stuck)
                    self._hung[worker] = stuck
                    ray.kill(worker)

    async def total_counts(self) -> dict[str, int]:
        total = Counter(self.counts)
        for worker in self._workers:
            try:
                total.update(await asyncio.wait_for(_awaited(worker.counts.remote()), timeout=10))
            except (TimeoutError, RayError):
                continue
        return dict(total)

    def worker_pids(self) -> list[Any]:
        return list(self._workers)


async def _played(worker: Any, *arguments: Any) -> Sequence[Any]:
    """(summary, reference to the samples, reference to the episodes). Its objects belong to this process: they outlive
    the worker. Raises RayError."""
    references = worker.play.remote(*arguments)
    try:
        return (await references[0], *references[1:])
    except asyncio.CancelledError:
        if isinstance(references[0], ray.ObjectRef):
            ray.cancel(references[0])  # nobody will take what the worker still plays
        raise


def _loss(error: RayError, task: Task) -> RayError:
    """What was lost, where another try may succeed. Raises RolloutFailed for an error of the play itself."""
    if not isinstance(error, RayTaskError):
        return error
    cause = error.cause
    if isinstance(cause, RayError) and not isinstance(cause, GetTimeoutError):
        return cause
    if isinstance(cause, RolloutFailed):
        raise cause from None
    raise RolloutFailed(f"{task.env} seed {task.seed}: {type(cause).__name__}: {cause}") from None


async def _awaited(reference: Any) -> Any:
    return await reference
