"""Whatever Ray loses is played again; whatever else goes wrong ends the run with its name. Workers are stand-ins whose
methods raise Ray's own errors."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    NodeDiedError,
    ObjectLostError,
    ObjectStoreFullError,
    OutOfMemoryError,
    OwnerDiedError,
    RayError,
    RayTaskError,
    TaskCancelledError,
    WorkerCrashedError,
)

from configs.training import TrainConfig
from training.checks.failures import EnvironmentFailed, RolloutFailed
from training.rollouts.pool import WorkerPool
from training.types import EpisodeSummary, GroupSummary, Task

TASK = Task("tictactoe", 5, 0)
EPISODE = EpisodeSummary(1.0, "completed", None, True, 1, 0, 2, (4,), 0, 0.1)
SUMMARY = GroupSummary(TASK, (EPISODE,), {"retries_infra_failed": 1})
CONFIG = TrainConfig.parse({"rollout": {"max_retries": 3, "retry_backoff_s": 0.0, "workers": 1}})


class Remote:
    """A method of an actor handle: `handle.method.remote(...)` gives three awaitable references."""

    def __init__(self, call: Callable[[], Awaitable[Any]]) -> None:
        self._call = call

    def remote(self, *_: Any) -> list[Any]:
        return [self._call(), "samples", "episodes"]


class Worker:
    def __init__(self, script: list[BaseException]) -> None:
        async def play() -> GroupSummary:
            if script:
                raise script.pop(0)
            return SUMMARY

        self.play = Remote(play)


def pool(*script: BaseException) -> tuple[WorkerPool, list[Worker]]:
    left, started = list(script), []

    def start() -> Worker:
        started.append(Worker(left))
        return started[-1]

    return WorkerPool(CONFIG, start), started


LOST_OBJECT = ObjectLostError("0" * 56, None, "")
STAYS = [LOST_OBJECT, OwnerDiedError("0" * 56, None, ""), TaskCancelledError(), ObjectStoreFullError("full")]
GONE = [
    ActorDiedError(),
    ActorUnavailableError("restarting", None),
    NodeDiedError("node"),
    OutOfMemoryError("memory"),
    WorkerCrashedError(),
]


@pytest.mark.parametrize("error", [*STAYS, *GONE], ids=lambda error: type(error).__name__)
async def test_what_ray_loses_is_played_again_and_counted_by_its_kind(error: RayError) -> None:
    workers, started = pool(error)
    group = await workers.play(TASK, 1, 0)
    counter = f"groups_replayed_{type(error).__name__}"
    assert group.summary.counts == {"retries_infra_failed": 1, counter: 1}
    assert workers.counts[counter] == 1
    assert len(started) == (2 if error in GONE else 1)  # a worker that lives on is kept
    assert (group.samples, group.episodes) == ("samples", None)


async def test_a_loss_inside_the_play_itself_is_played_again_too() -> None:
    workers, _ = pool(RayTaskError("play", "trace", LOST_OBJECT))
    assert (await workers.play(TASK, 1, 0)).summary.counts["groups_replayed_ObjectLostError"] == 1


async def test_what_is_lost_every_time_ends_with_the_kind_of_the_last_loss() -> None:
    workers, _ = pool(*(OutOfMemoryError("worker used 9 GiB") for _ in range(4)))
    with pytest.raises(RolloutFailed, match=r"lost in each of 4 tries; the last time: OutOfMemoryError"):
        await workers.play(TASK, 1, 0)


async def test_any_other_error_of_a_play_ends_it_with_its_name() -> None:
    workers, _ = pool(RayTaskError("play", "trace", ZeroDivisionError("division by zero")))
    with pytest.raises(RolloutFailed, match=r"tictactoe seed 5: ZeroDivisionError: division by zero"):
        await workers.play(TASK, 1, 0)


async def test_a_named_failure_keeps_its_type() -> None:
    workers, _ = pool(RayTaskError("play", "trace", EnvironmentFailed("broken level")))
    with pytest.raises(EnvironmentFailed, match="broken level"):
        await workers.play(TASK, 1, 0)


async def test_a_play_that_is_cancelled_is_not_tried_again() -> None:
    workers, _ = pool(asyncio.CancelledError())
    with pytest.raises(asyncio.CancelledError):
        await workers.play(TASK, 1, 0)
    assert workers.counts == {}
