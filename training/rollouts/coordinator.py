"""The Ray actor that owns a run's task stream and buffer."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from configs.training import TrainConfig
from training.checks.batches import sizes_alarm
from training.checks.failures import FaultyRollout
from training.checks.siblings import SiblingAnswers
from training.rollouts import records
from training.rollouts.batch import Share, plan, share_of
from training.rollouts.curriculum import Achieved, curriculum_of
from training.rollouts.packed import PlayedGroup
from training.rollouts.pool import WorkerPool
from training.rollouts.stream import GroupStream
from training.rollouts.worker import start_worker
from training.tracking.metrics import rollout_metrics
from training.types import Episode, Group, GroupSummary, Task

logger = logging.getLogger("rayward")


class RunCoordinator:
    """Owns the task stream and the buffer of a run. It holds summaries of groups and references to their tokens, never
    the tokens.

    Consumes: groups from the pool, `published` from the learner. Waits for: the groups of the step that the learner
    asks for. Unblocked by: their completion, or the first failure, which ends the run with its message.
    """

    def __init__(self, config: dict[str, Any], model_folder: str, app: str) -> None:
        self._config = TrainConfig.model_validate(config)
        self._pool = WorkerPool(self._config, lambda: self._start_worker(model_folder, app))
        self._curriculum = curriculum_of(self._config)
        staged = {} if self._curriculum is None else {"staged": self._curriculum.staged}
        self._stream = GroupStream(self._config, self._play, self._writes, **staged)
        self._steps: dict[int, asyncio.Task[list[Share]]] = {}
        self._taken: list[PlayedGroup] = []  # of the newest step
        self._finished: dict[int, dict[str, float]] = {}  # step -> its metrics
        self._watch: asyncio.Task[None] | None = None
        self._episodes: str | None = None
        self._past: int | None = None  # version in the store of past versions that opponents play with
        self._given_up: str | None = None
        self._answers = SiblingAnswers()
        self._given: tuple[int, float] | None = None  # (step that the learner was given last, when, monotonic s)

    def _start_worker(self, model_folder: str, app: str) -> Any:
        return start_worker(self._config, model_folder, app)

    async def begin(
        self,
        first_step: int,
        base_version: int,
        waiting: Sequence[PlayedGroup] = (),
        episodes_folder: str | None = None,
        past_version: int | None = None,
        achieved: Mapping[int, Achieved] | None = None,
    ) -> None:
        """(Re)starts the stream at a step: at the start of a run, after a resume, after a restart of the learner.
        `waiting`: finished groups of a checkpoint; `episodes_folder`: where every n-th step's episodes are written;
        `past_version`: see `published`; `achieved`: what a checkpoint holds of the curriculum."""
        self._episodes, self._past = episodes_folder, past_version
        for step in self._steps.values():
            step.cancel()
        self._steps, self._taken, self._given, self._given_up = {}, [], None, None
        self._answers = SiblingAnswers()
        if self._curriculum is not None:
            self._curriculum.begin(first_step, achieved or {})
        if self._watch is None:
            self._watch = asyncio.create_task(self._pool.watch())
            self._watch.add_done_callback(self._watch_ended)
        referenced = [replace(group, samples=ray.put(group.samples)) for group in waiting]
        await self._stream.begin(first_step, base_version, referenced)

    def _watch_ended(self, watch: asyncio.Task[None]) -> None:
        error = None if watch.cancelled() else watch.exception()
        if error is not None:
            self._stream.fail(error)

    async def _play(self, task: Task, min_version: int, keep_episodes: bool) -> PlayedGroup:
        size, past = self._config.rollout.group_size, self._past if self._meets_past(task) else None
        return await self._pool.play(task, size, min_version, keep_episodes=keep_episodes, past_version=past)

    def _meets_past(self, task: Task) -> bool:
        """Whether the group's opponents are past versions: drawn from its seed, so that a run repeats."""
        return random.Random(f"opponent/{task.seed}").random() < self._config.self_play.past_share

    def _writes(self, step: int) -> bool:
        every = self._config.tracking.episodes_every_steps
        return bool(every and self._episodes and step % every == 0)

    async def next_batch(self, step: int, rank: int = 0, world: int = 1) -> Share:
        """This rank's share of the step's batch. Raises RolloutFailed when a group of it cannot be completed."""
        if step not in self._steps:
            self._steps = {step: asyncio.create_task(self._make(step, world))}
        making = self._steps[step]
        try:
            shares = await asyncio.shield(making)  # one rank that leaves does not take the batch from the others
        except Exception:
            self._steps.pop(step, None)
            raise
        self._given = (step, time.monotonic())
        return shares[rank]

    async def _make(self, step: int, world: int) -> list[Share]:
        began = time.perf_counter()
        groups = await self._stream.groups(step)
        wait_s = time.perf_counter() - began
        self._taken = groups
        await self._record(groups, step)
        summaries = [group.summary for group in groups]
        replaced = [summary for group in groups for summary in group.replaced]
        played = [*summaries, *replaced]  # the policy is judged by all: those with spread alone are a selection
        alarms = self._alarms(played)
        planned = plan(summaries, self._config.algorithm, world)
        metrics = rollout_metrics(played) | {
            "rollout/dropped_groups": planned.dropped_groups / len(groups),
            "rollout/replaced_groups_total": float(len(replaced)),
            "rollout/lag_max": float(self._stream.buffer.lag(groups, step)),
            "rollout/wait_s": wait_s,
        }
        metrics["rollout/alarms_total"] += alarms
        if self._curriculum is not None:
            metrics |= self._curriculum.record(step, played)
        samples, version = [group.samples for group in groups], self._stream.buffer.base_version + step
        return [share_of(rank, planned, samples, step, metrics, version) for rank in range(world)]

    def _alarms(self, summaries: Sequence[GroupSummary]) -> int:
        """What the groups of a step say together. Raises FaultyRollout, or warns and returns how many alarms."""
        self._answers = self._answers.with_groups(summary.episodes for summary in summaries)
        sizes = sizes_alarm([len(summary.episodes) for summary in summaries], self._config.rollout.group_size)
        found = [alarm for alarm in (sizes, self._answers.alarm()) if alarm is not None]
        if found and self._config.on_alarm == "end":
            faulty = FaultyRollout(found[0])
            self._stream.fail(faulty)  # for the other ranks: these groups are taken and will not come again
            raise faulty
        for alarm in found:
            logger.warning("%s", alarm)
        return len(found)

    async def replay(self, step: int, lost: Sequence[int]) -> None:
        """Plays groups of a step again whose tokens are lost (`lost`: positions in the step); the step is to be asked
        for again."""
        self._steps.pop(step, None)
        kept = [group for position, group in enumerate(self._taken) if position not in lost]
        self._stream.replay(kept, [self._taken[position].task.index for position in lost])
        self._pool.counts["groups_replayed_tokens_lost"] += len(lost)

    async def _record(self, groups: list[PlayedGroup], step: int) -> None:
        """A group whose episodes are lost with a node is left out of the file."""
        if not self._writes(step):
            return
        whole: list[Group] = []
        for group in groups:
            try:
                episodes = None if group.episodes is None else await _fetched(group.episodes)
            except RayError as error:
                logger.warning("the episodes of group %d are lost: %s", group.task.index, error)
                continue
            if episodes:
                whole.append(Group(group.task, episodes))
        await asyncio.to_thread(records.write, whole, step, Path(str(self._episodes)))

    async def published(self, version: int, past_version: int | None = None) -> None:
        """The learner made a new version: rollouts that waited for it may start. `past_version`: there is another
        opponent in self-play, this version of the store of past versions."""
        self._past = self._past if past_version is None else past_version
        self._stream.published(version)

    async def finished(self, step: int, metrics: dict[str, float]) -> None:
        """The learner is done with a step: `progress` tells it to the driver."""
        self._finished[step] = metrics

    async def evaluate(self, seeds: Sequence[int], min_weight_version: int, history: str = "") -> list[Episode]:
        """One episode a seed in the evaluation's situations; `history`: another strategy than the configured one.
        Raises RolloutFailed."""
        name = self._config.env.name
        watch = asyncio.create_task(self._pool.watch()) if self._watch is None else None
        try:
            async with asyncio.TaskGroup() as plays:
                played = [
                    plays.create_task(self._evaluated(Task(name, seed, index), min_weight_version, history))
                    for index, seed in enumerate(seeds)
                ]
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        finally:
            if watch is not None:
                watch.cancel()
        return [play.result() for play in played]

    async def _evaluated(self, task: Task, min_weight_version: int, history: str) -> Episode:
        group = await self._pool.play(task, 1, min_weight_version, evaluation=True, history=history, keep_episodes=True)
        episodes: tuple[Episode, ...] = await _fetched(group.episodes)
        return episodes[0]

    async def state(self) -> dict[str, Any]:
        """What a checkpoint must hold of the rollouts: finished groups that wait, with their tokens. Groups in flight
        are played again from their task, which is derived from the step; so are those whose tokens are lost."""
        waiting = []
        for group in self._stream.buffer.waiting() if self._stream.begun else []:
            try:
                episodes = await _fetched(group.episodes)
                waiting.append(replace(group, samples=await _fetched(group.samples), episodes=episodes))
            except RayError as error:
                logger.warning("group %d is lost and played again: %s", group.task.index, error)
                self._stream.replay([], [group.task.index])
        achieved = {} if self._curriculum is None else self._curriculum.achieved
        return {"waiting": waiting, "achieved": achieved}

    async def give_up(self, reason: str) -> None:
        """The learner ends the run for a reason that no restart can mend; the driver asks for it with `given_up`."""
        self._given_up = reason

    async def begun(self) -> int:
        """How often the stream has begun: once for each start of the learner."""
        return self._stream.generation

    async def given_up(self) -> str | None:
        return self._given_up

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
        if not self._stream.begun:
            return "the learner has not started"
        if self._stream.asked is not None:
            step, since = self._stream.asked
            running = self._stream.running
            return (
                f"the learner waits for the groups of step {step} since {now - since:.0f} s; in flight: "
                f"{len(running)} groups (first {running[:4]}), asking for weight version "
                f"{self._stream.buffer.version} or newer; counters {dict(self._pool.counts)}"
            )
        if self._given is not None:
            step, since = self._given
            return f"the coordinator waits for the learner, which was given step {step} {now - since:.0f} s ago"
        return "the coordinator waits for the learner's first question"


async def _fetched(value: Any) -> Any:
    return await value if isinstance(value, ray.ObjectRef) else value


@ray.remote
class Coordinator(RunCoordinator):
    """A RunCoordinator in a process of its own."""
