"""Rollout workers that are replaced when they die or hang."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError

from configs.training import TrainConfig
from training.rollouts.group import EnvironmentFailed, RolloutFailed
from training.rollouts.worker import RolloutWorker
from training.types import Group, Task

logger = logging.getLogger("rayward")


class WorkerPool:
    """Rollout workers that are replaced when they die or hang; a group is played until one worker delivers it."""

    def __init__(self, config: TrainConfig, model_folder: str, app: str) -> None:
        self._config = config
        self._arguments = (config.dump(), model_folder, app)
        self._workers = [self._start() for _ in range(config.rollout.workers)]
        self._turn = 0
        self._hung: dict[Any, str] = {}
        self.counts: Counter[str] = Counter()

    def _start(self) -> Any:
        options = RolloutWorker.options(  # type: ignore[attr-defined]
            num_cpus=self._config.rollout.worker_cpus, max_concurrency=4096
        )
        return options.remote(*self._arguments)

    async def play(
        self, task: Task, group_size: int, min_weight_version: int, evaluation: bool = False, history: str = ""
    ) -> Group:
        """One group, wherever it can be had. Raises RolloutFailed with the named cause."""
        hangs = 0
        for _ in range(self._config.rollout.max_retries + 1):
            slot = self._turn = (self._turn + 1) % len(self._workers)
            worker = self._workers[slot]
            try:
                group: Group = await worker.play.remote(task, group_size, min_weight_version, evaluation, history)
                return group
            except RayTaskError as error:
                cause = error.cause
                raise (cause if isinstance(cause, RolloutFailed) else RolloutFailed(str(cause))) from None
            except RayActorError:
                self._replace(slot, worker)
                self.counts["groups_replayed_worker_lost"] += 1
                if worker in self._hung:
                    hangs += 1
                    if hangs == 2:
                        raise EnvironmentFailed(f"the environment hung twice: {self._hung[worker]}") from None
        raise RolloutFailed(f"{task}: lost a rollout worker in each of {self._config.rollout.max_retries + 1} tries")

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
                except (TimeoutError, RayActorError):
                    continue
                if stuck:
                    logger.error("killing a rollout worker: %s", stuck)
                    self._hung[worker] = stuck
                    ray.kill(worker)

    async def total_counts(self) -> dict[str, int]:
        total = Counter(self.counts)
        for worker in self._workers:
            try:
                total.update(await asyncio.wait_for(_awaited(worker.counts.remote()), timeout=10))
            except (TimeoutError, RayActorError):
                continue
        return dict(total)

    def worker_pids(self) -> list[Any]:
        return list(self._workers)


async def _awaited(reference: Any) -> Any:
    return await reference
