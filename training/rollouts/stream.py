"""The task stream of a run: what is played now, what is finished, and what failed. asyncio only, no Ray."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import replace
from functools import partial

from configs.training import TrainConfig
from training.checks.failures import RolloutFailed
from training.rollouts.batch import without_spread
from training.rollouts.buffer import GroupBuffer, task_at
from training.rollouts.packed import PlayedGroup
from training.types import GroupSummary, Task

Play = Callable[
    [Task, int, bool], Coroutine[object, object, PlayedGroup]
]  # (task, oldest weight version allowed, keep its episodes)


class GroupStream:
    """Owns the buffer and the plays that fill it.

    Consumes: finished groups, `published` from the learner. Waits for: the groups of the step that is asked for.
    Unblocked by: their completion, the first failure (it ends the run with its name), or the next `begin`.

    Each `begin` starts a generation. Plays of an earlier one are cancelled and awaited, and whatever they still
    deliver is dropped: a group of stale weights never reaches the new buffer.

    A group without spread is replaced, up to `rollout.max_refills` times, by a group of another task in the same
    position (dynamic sampling: DAPO, arXiv 2503.14476). What a position plays depends on nothing but its own groups,
    so a run with refills repeats and resumes like any other.
    """

    def __init__(
        self,
        config: TrainConfig,
        play: Play,
        keeps: Callable[[int], bool] = lambda step: False,
        staged: Callable[[int, Task], Task] = lambda step, task: task,
    ) -> None:
        """`keeps(step)`: whether the episodes of a step's groups will be read (else only their samples are kept).
        `staged(step, task)`: the task as the run's curriculum wants it."""
        self._config, self._play, self._keeps, self._staged = config, play, keeps, staged
        self._buffer: GroupBuffer[PlayedGroup] | None = None
        self.generation = 0  # how often it has begun
        self._running: dict[int, asyncio.Task[PlayedGroup]] = {}
        self._failure: RolloutFailed | None = None
        self._changed = asyncio.Event()
        self.asked: tuple[int, float] | None = None  # (step that the learner waits for, since, monotonic s)

    @property
    def buffer(self) -> GroupBuffer[PlayedGroup]:
        """Raises RolloutFailed before the first `begin`."""
        if self._buffer is None:
            raise RolloutFailed("the task stream has not begun")
        return self._buffer

    @property
    def begun(self) -> bool:
        return self._buffer is not None

    @property
    def running(self) -> list[int]:
        """Positions in the stream that are played now."""
        return sorted(self._running)

    async def begin(self, first_step: int, base_version: int, waiting: Sequence[PlayedGroup] = ()) -> None:
        """(Re)starts the stream at a step, with finished groups of a checkpoint."""
        self.generation += 1
        generation, stale, self._running = self.generation, list(self._running.values()), {}
        self._failure = self.asked = None
        rollout = self._config.rollout
        self._buffer = GroupBuffer(
            rollout.groups_per_step, rollout.max_policy_lag_steps, self._config.steps, first_step, base_version
        )
        self._buffer.put_back(waiting)
        for task in stale:
            task.cancel()
        await asyncio.gather(*stale, return_exceptions=True)
        self._wake()
        if generation == self.generation:  # else another `begin` came while this one waited
            self._launch(self._buffer.startable())

    def published(self, version: int) -> None:
        """The learner made a new version: rollouts that waited for it start."""
        self.buffer.version = max(self.buffer.version, version)
        self._launch(self.buffer.startable())

    async def groups(self, step: int) -> list[PlayedGroup]:
        """The groups of a step, taken out of the buffer. Raises RolloutFailed when one cannot be completed, and for a
        caller that a later `begin` has left behind."""
        generation, buffer = self.generation, self.buffer
        self.asked = self.asked or (step, time.monotonic())
        while not buffer.ready(step):
            if self._failure is not None:
                raise self._failure
            await self._changed.wait()
            if generation != self.generation:
                raise RolloutFailed(f"step {step} was asked for by a learner that has been replaced")
        self.asked = None
        return buffer.take(step)

    def replay(self, kept: Sequence[PlayedGroup], lost: Sequence[int]) -> None:
        """Plays positions again whose tokens are lost; `kept` are the others that were taken with them."""
        self.buffer.put_back(kept)
        for index in lost:
            self.buffer.remove(index)
        self._launch(lost)

    def fail(self, error: BaseException) -> None:
        """Ends the run with this error: the learner that waits is told."""
        if self._failure is None:
            named = error if isinstance(error, RolloutFailed) else RolloutFailed(f"{type(error).__name__}: {error}")
            self._failure = named
        self._wake()

    def _launch(self, indices: Iterable[int]) -> None:
        for index in list(indices):
            self._start(index, ())

    def _start(self, index: int, replaced: tuple[GroupSummary, ...]) -> None:
        task = task_at(self._config.env.name, self._config.seed, index, len(replaced))
        step = self.buffer.step_of(index)
        task, keep = self._staged(step, task), self._keeps(step)
        playing = asyncio.create_task(self._play(task, self.buffer.min_version(index), keep))
        self._running[index] = playing
        playing.add_done_callback(partial(self._ended, self.generation, index, replaced))

    def _ended(
        self, generation: int, index: int, replaced: tuple[GroupSummary, ...], play: asyncio.Task[PlayedGroup]
    ) -> None:
        """A play has ended, in whatever way: no task dies unseen."""
        if self._running.get(index) is play:
            del self._running[index]
        error = asyncio.CancelledError("the play was cancelled") if play.cancelled() else play.exception()
        if generation != self.generation:
            return
        if error is not None:
            self.fail(error if isinstance(error, RolloutFailed) else _named(index, error))
            return
        group = play.result()
        if without_spread(group.summary, self._config.algorithm) and len(replaced) < self._config.rollout.max_refills:
            self._start(index, (*replaced, group.summary))
            return
        try:
            self.buffer.add(replace(group, replaced=replaced))
        except ValueError as twice:
            self.fail(_named(index, twice))
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


def _named(index: int, error: BaseException) -> RolloutFailed:
    return RolloutFailed(f"group {index}: {type(error).__name__}: {error}")
