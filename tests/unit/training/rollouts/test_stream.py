"""Groups of the present generation fill the buffer, and nothing that plays them dies unseen."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from configs.training import TrainConfig
from training.checks.failures import EnvironmentFailed, RolloutFailed
from training.rollouts.buffer import task_at
from training.rollouts.packed import PlayedGroup
from training.rollouts.stream import GroupStream
from training.types import EpisodeSummary, GroupSummary, Task

CONFIG = TrainConfig.parse({"steps": 4, "rollout": {"groups_per_step": 2, "max_policy_lag_steps": 0}})


def played(task: Task, version: int = 0) -> PlayedGroup:
    episode = EpisodeSummary(1.0, "completed", None, True, 1, 0, 2, (4,), version, 0.1)
    return PlayedGroup(GroupSummary(task, (episode,)), samples=None)


def with_returns(task: Task, *returns: float) -> PlayedGroup:
    episodes = tuple(EpisodeSummary(value, "completed", None, True, 1, 0, 2, (4,), 0, 0.1) for value in returns)
    return PlayedGroup(GroupSummary(task, episodes), samples=None)


class Plays:
    """Plays that end when the test says so; (index, version) of each that was asked for."""

    def __init__(self, stubborn: bool = False) -> None:
        self.asked: list[tuple[int, int]] = []
        self.open: dict[int, asyncio.Future[PlayedGroup]] = {}
        self._stubborn = stubborn
        self.ended_late = 0

    async def __call__(self, task: Task, version: int, keep: bool) -> PlayedGroup:
        self.asked.append((task.index, version))
        future = self.open[task.index] = asyncio.get_running_loop().create_future()
        try:
            return await future
        except asyncio.CancelledError:
            if not self._stubborn:
                raise
            self.ended_late += 1  # delivers all the same: its group was on the way
            return played(task, version)

    def finish(self, *indices: int, version: int = 0) -> None:
        for index in indices:
            self.open[index].set_result(played(Task("tictactoe", 0, index), version))


async def begun(plays: Plays, base_version: int = 0) -> GroupStream:
    stream = GroupStream(CONFIG, plays)
    await stream.begin(0, base_version)
    await asyncio.sleep(0)  # the plays begin
    return stream


async def test_the_groups_of_a_step_are_given_when_all_are_there() -> None:
    plays = Plays()
    stream = await begun(plays)
    asking = asyncio.create_task(stream.groups(0))
    plays.finish(1, 0)
    assert [group.task.index for group in await asking] == [0, 1]
    stream.published(1)
    assert stream.running == [2, 3]


@pytest.mark.parametrize("error", [KeyError("x"), MemoryError("y"), asyncio.CancelledError(), OSError("disk")])
async def test_a_play_that_dies_of_anything_tells_the_learner_that_waits(error: BaseException) -> None:
    plays = Plays()
    stream = await begun(plays)
    asking = asyncio.create_task(stream.groups(0))
    if isinstance(error, asyncio.CancelledError):
        plays.open[0].cancel()
    else:
        plays.open[0].set_exception(error)
    with pytest.raises(RolloutFailed, match=rf"group 0: {type(error).__name__}"):
        await asking


async def test_a_named_failure_reaches_the_learner_as_it_is() -> None:
    plays = Plays()
    stream = await begun(plays)
    plays.open[1].set_exception(EnvironmentFailed("broken level"))
    with pytest.raises(EnvironmentFailed, match="broken level"):
        await stream.groups(0)


async def test_plays_of_the_generation_before_take_no_entry_of_the_new_one() -> None:
    plays = Plays(stubborn=True)
    stream = await begun(plays)
    await stream.begin(0, 10)
    await asyncio.sleep(0)
    assert plays.ended_late == 2  # awaited before the new plays began
    assert stream.running == [0, 1]


async def test_a_stale_group_never_enters_the_new_buffer() -> None:
    plays = Plays(stubborn=True)
    stream = await begun(plays)
    for base_version in (10, 20):
        await stream.begin(0, base_version)
        await asyncio.sleep(0)
    assert plays.asked == [(0, 0), (1, 0), (0, 10), (1, 10), (0, 20), (1, 20)]
    assert stream.buffer.missing(0) == [0, 1]
    plays.finish(0, 1, version=20)
    groups = await stream.groups(0)
    assert stream.buffer.lag(groups, 0) == 0


async def test_a_learner_that_was_replaced_is_told_and_takes_nothing() -> None:
    plays = Plays()
    stream = await begun(plays)
    left_behind = asyncio.create_task(stream.groups(0))
    await asyncio.sleep(0)
    await stream.begin(0, 1)
    with pytest.raises(RolloutFailed, match="a learner that has been replaced"):
        await left_behind


async def test_two_restarts_at_once_start_each_position_once() -> None:
    plays = Plays()
    stream = await begun(plays)
    await asyncio.gather(stream.begin(0, 1), stream.begin(0, 2))
    await asyncio.sleep(0)
    assert plays.asked[2:] == [(0, 2), (1, 2)]


async def test_a_group_whose_tokens_are_lost_is_played_again_beside_those_that_are_kept() -> None:
    plays = Plays()
    stream = await begun(plays)
    plays.finish(0, 1)
    first, second = await stream.groups(0)
    stream.replay([first], [1])
    await asyncio.sleep(0)
    assert stream.running == [1]
    plays.finish(1)
    again = await stream.groups(0)
    assert again[0] is first
    assert again[1] is not second


async def test_finished_groups_of_a_checkpoint_are_not_played_again() -> None:
    plays = Plays()
    stream = GroupStream(CONFIG, plays)
    await stream.begin(1, 5, [played(Task("tictactoe", 0, 3), 5)])
    await asyncio.sleep(0)
    assert plays.asked == [(2, 6)]


async def refilled(max_refills: int, spread: Callable[[Task], bool]) -> tuple[list[Task], list[PlayedGroup]]:
    """All tasks that one step plays, and its groups."""
    tasks: list[Task] = []

    async def play(task: Task, version: int, keep: bool) -> PlayedGroup:
        tasks.append(task)
        return with_returns(task, 0.0, float(spread(task)))

    config = TrainConfig.parse({"steps": 1, "rollout": {"groups_per_step": 2, "max_refills": max_refills}})
    stream = GroupStream(config, play)
    await stream.begin(0, 0)
    return tasks, await asyncio.wait_for(stream.groups(0), timeout=10)


async def test_a_group_without_spread_is_replaced_by_one_of_another_task() -> None:
    wanted = task_at("tictactoe", 0, 1, refill=2)
    tasks, groups = await refilled(5, lambda task: task == wanted or task.index == 0)
    assert [group.task for group in groups] == [task_at("tictactoe", 0, 0), wanted]
    assert [task for task in tasks if task.index == 1] == [task_at("tictactoe", 0, 1, refill=n) for n in range(3)]
    assert len({task.seed for task in tasks}) == len(tasks)
    assert [len(group.replaced) for group in groups] == [0, 2]


async def test_refills_are_bounded_and_the_last_group_stands() -> None:
    tasks, groups = await refilled(2, lambda task: False)
    assert len(tasks) == 2 * 3
    assert [group.task for group in groups] == [task_at("tictactoe", 0, index, refill=2) for index in range(2)]


async def test_a_position_that_is_played_again_begins_with_its_first_task() -> None:
    """Its weights are the same, so it comes to the same group: a resumed run repeats."""
    tasks: list[Task] = []

    async def play(task: Task, version: int, keep: bool) -> PlayedGroup:
        tasks.append(task)
        return with_returns(task, 0.0, float(task != task_at("tictactoe", 0, task.index)))

    stream = GroupStream(TrainConfig.parse({"steps": 1, "rollout": {"groups_per_step": 1, "max_refills": 3}}), play)
    await stream.begin(0, 0)
    first = await asyncio.wait_for(stream.groups(0), timeout=10)
    stream.replay([], [0])
    again = await asyncio.wait_for(stream.groups(0), timeout=10)
    assert again == first
    assert tasks[2:] == tasks[:2]


async def test_turns_of_unlike_worth_are_spread_where_turns_are_compared() -> None:
    """Both siblings were paid 1, one of them early: nothing is played in the place of their group."""

    async def play(task: Task, version: int, keep: bool) -> PlayedGroup:
        tasks.append(task)
        plain = with_returns(task, 1.0, 1.0).summary.episodes
        rewards = ((1.0, 0.0), (0.0, 1.0))
        episodes = tuple(replace(each, turn_rewards=turns) for each, turns in zip(plain, rewards, strict=True))
        return PlayedGroup(GroupSummary(task, episodes), samples=None)

    for credit, plays in (("episode", 2), ("turn_to_go", 1)):
        tasks: list[Task] = []
        given = {"steps": 1, "rollout": {"groups_per_step": 1, "max_refills": 1}, "algorithm": {"credit": credit}}
        stream = GroupStream(TrainConfig.parse(given), play)
        await stream.begin(0, 0)
        await asyncio.wait_for(stream.groups(0), timeout=10)
        assert len(tasks) == plays
