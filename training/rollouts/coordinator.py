"""The Ray actor that owns a run's task stream and buffer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray

from configs.training import TrainConfig
from training.algorithms.advantages import ADVANTAGES
from training.rollouts import records
from training.rollouts.batch import split_over_ranks
from training.rollouts.buffer import GroupBuffer, task_at
from training.rollouts.group import RolloutFailed
from training.rollouts.pool import WorkerPool
from training.rollouts.samples import group_samples
from training.tracking.metrics import rollout_metrics
from training.types import Batch, Denominators, Episode, Group, Sample, Task


@ray.remote
class Coordinator:
    """Owns the task stream and the buffer of a run.

    Consumes: groups from the pool, `published` from the learner. Waits for: the groups of the step that the learner
    asks for. Unblocked by: their completion, or the first RolloutFailed, which ends the run with its message.
    """

    def __init__(self, config: dict[str, Any], model_folder: str, app: str) -> None:
        self._config = TrainConfig.model_validate(config)
        self._pool = WorkerPool(self._config, model_folder, app)
        self._buffer: GroupBuffer | None = None
        self._changed = asyncio.Condition()
        self._running: dict[int, asyncio.Task[None]] = {}
        self._failure: BaseException | None = None
        self._batches: dict[int, list[Batch]] = {}
        self._finished: dict[int, dict[str, float]] = {}  # step -> its metrics
        self._watch: asyncio.Task[None] | None = None
        self._episodes: str | None = None
        self._asked: tuple[int, float] | None = None  # (step that the learner waits for, since, monotonic s)
        self._given: tuple[int, float] | None = None  # (step that the learner was given last, when)

    async def begin(
        self, first_step: int, base_version: int, waiting: Sequence[Group] = (), episodes_folder: str | None = None
    ) -> None:
        """(Re)starts the stream at a step: at the start of a run, after a resume, after a restart of the learner.
        `episodes_folder`: where every n-th step's episodes are written."""
        self._episodes = episodes_folder
        for task in self._running.values():
            task.cancel()
        self._running.clear()
        self._batches.clear()
        self._failure = self._asked = self._given = None
        rollout = self._config.rollout
        self._buffer = GroupBuffer(
            rollout.groups_per_step, rollout.max_policy_lag_steps, self._config.steps, first_step, base_version
        )
        for group in waiting:
            self._buffer.add(group)
        if self._watch is None:
            self._watch = asyncio.create_task(self._pool.watch())
        self._launch()

    def _launch(self) -> None:
        assert self._buffer is not None
        for index in self._buffer.startable():
            task = task_at(self._config.env.name, self._config.seed, index)
            self._running[index] = asyncio.create_task(self._play(task, self._buffer.min_version(index)))

    async def _play(self, task: Task, min_version: int) -> None:
        try:
            group = await self._pool.play(task, self._config.rollout.group_size, min_version)
        except RolloutFailed as error:
            self._failure = self._failure or error
        else:
            assert self._buffer is not None
            self._buffer.add(group)
        finally:
            self._running.pop(task.index, None)
        async with self._changed:
            self._changed.notify_all()

    async def next_batch(self, step: int, rank: int = 0, world: int = 1) -> Batch:
        """This rank's share of the step's batch. Raises RolloutFailed when a group of it cannot be completed."""
        buffer = self._buffer
        if buffer is None:
            raise RolloutFailed("next_batch before begin")
        began = time.perf_counter()
        self._asked = self._asked or (step, time.monotonic())
        async with self._changed:
            await self._changed.wait_for(
                lambda: step in self._batches or buffer.ready(step) or self._failure is not None
            )
            self._asked, self._given = None, (step, time.monotonic())
            if step not in self._batches:
                if self._failure is not None and not buffer.ready(step):
                    raise self._failure
                groups = buffer.take(step)
                await self._record(groups, step)
                self._batches = {step: self._build(groups, step, world, time.perf_counter() - began)}
        return self._batches[step][rank]

    async def _record(self, groups: list[Group], step: int) -> None:
        every = self._config.tracking.episodes_every_steps
        if every and self._episodes and step % every == 0:
            await asyncio.to_thread(records.write, groups, step, Path(self._episodes))

    def _build(self, groups: list[Group], step: int, world: int, wait_s: float) -> list[Batch]:
        assert self._buffer is not None
        algorithm = self._config.algorithm
        advantage = ADVANTAGES[algorithm.advantage]
        samples: list[Sample] = []
        kept = 0
        for group in groups:
            if algorithm.drop_uniform_groups and len(set(group.returns_G)) == 1:
                continue
            samples += group_samples(group, advantage(group.returns_G), kept)
            kept += 1
        denominators = Denominators(sum(sample.chosen for sample in samples), len(samples), kept)
        metrics = rollout_metrics(groups) | {
            "rollout/lag_max": float(self._buffer.lag(groups, step)),
            "rollout/wait_s": wait_s,
        }
        shares = split_over_ranks(samples, world)
        return [Batch(tuple(share), denominators, step, metrics) for share in shares]

    async def published(self, version: int) -> None:
        """The learner made a new version: rollouts that waited for it may start."""
        assert self._buffer is not None
        self._buffer.version = max(self._buffer.version, version)
        self._launch()

    async def finished(self, step: int, metrics: dict[str, float]) -> None:
        """The learner is done with a step: `progress` tells it to the driver."""
        self._finished[step] = metrics

    async def evaluate(self, seeds: Sequence[int], min_weight_version: int, history: str = "") -> list[Episode]:
        """One episode a seed in the evaluation's situations; `history`: another strategy than the configured one.
        Raises RolloutFailed."""
        name = self._config.env.name
        tasks = [Task(name, seed, index) for index, seed in enumerate(seeds)]
        watch = None
        if self._watch is None:
            watch = asyncio.create_task(self._pool.watch())
        try:
            groups = await asyncio.gather(
                *(self._pool.play(task, 1, min_weight_version, evaluation=True, history=history) for task in tasks)
            )
        finally:
            if watch is not None:
                watch.cancel()
        return [group.episodes[0] for group in groups]

    async def state(self) -> dict[str, Any]:
        """What a checkpoint must hold of the rollouts: finished groups that wait. Groups in flight are played again
        from their task, which is derived from the step."""
        return {"waiting": self._buffer.waiting() if self._buffer else []}

    async def progress(self, since: int = 0) -> list[tuple[int, dict[str, float]]]:
        """(step, metrics) of the finished steps from `since` on."""
        return sorted((step, metrics) for step, metrics in self._finished.items() if step >= since)

    async def counts(self) -> dict[str, int]:
        return await self._pool.total_counts()

    async def workers(self) -> list[Any]:
        return self._pool.worker_pids()

    async def waits_for(self) -> str:
        """For the watchdog: who waits for what, since when."""
        now = time.monotonic()
        if self._buffer is None:
            return "the learner has not started"
        if self._asked is not None:
            step, since = self._asked
            return (
                f"the learner waits for the groups of step {step} since {now - since:.0f} s; in flight: "
                f"{len(self._running)} groups (first {sorted(self._running)[:4]}), asking for weight version "
                f"{self._buffer.version} or newer; counters {dict(self._pool.counts)}"
            )
        if self._given is not None:
            step, since = self._given
            return f"the coordinator waits for the learner, which was given step {step} {now - since:.0f} s ago"
        return "the coordinator waits for the learner's first question"
