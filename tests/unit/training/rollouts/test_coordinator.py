"""What the coordinator tells the driver of the learner's steps."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from configs.rollouts import RolloutConfig
from configs.training import TrainConfig
from training.checks.failures import FaultyRollout
from training.rollouts.batch import Share
from training.rollouts.buffer import task_at
from training.rollouts.coordinator import RunCoordinator
from training.rollouts.packed import PlayedGroup, pack
from training.types import Episode, Group, Task, Turn


class WithoutWorkers(RunCoordinator):
    def _start_worker(self, model_folder: str, app: str) -> Any:
        return None


def test_steps_keep_their_numbers_after_a_resume_and_a_repeated_one_is_told_once() -> None:
    async def told() -> tuple[list[Any], list[Any]]:
        coordinator = WithoutWorkers(TrainConfig().dump(), "", "")
        for step, loss in ((7, 0.7), (8, 0.8), (7, 0.75)):  # resumed at 7; its learner restarted after 8
            await coordinator.finished(step, {"train/loss": loss})
        return await coordinator.progress(), await coordinator.progress(since=8)

    everything, news = asyncio.run(told())

    assert everything == [(7, {"train/loss": 0.75}), (8, {"train/loss": 0.8})]
    assert news == [(8, {"train/loss": 0.8})]


def test_groups_that_lost_a_sibling_end_the_run_for_every_rank() -> None:
    """The groups are taken from the buffer by then: a rank that asks later must not wait for them."""

    async def asked() -> None:
        config = TrainConfig(rollout=RolloutConfig(groups_per_step=1, group_size=3), steps=1)
        coordinator = SmallGroups(config.dump(), "", "")
        await coordinator.begin(0, 0)
        for rank in (0, 1):
            with pytest.raises(FaultyRollout, match="check «whole groups»"):
                await asyncio.wait_for(coordinator.next_batch(0, rank, 2), timeout=10)

    asyncio.run(asked())


def test_groups_that_were_replaced_count_in_the_figures_and_not_in_the_batch() -> None:
    """The first group of each position is lost by all its siblings; the second has spread."""

    async def asked() -> Share:
        config = TrainConfig(rollout=RolloutConfig(groups_per_step=2, group_size=2, max_refills=3), steps=1)
        coordinator = SecondHasSpread(config.dump(), "", "")
        await coordinator.begin(0, 0)
        return await asyncio.wait_for(coordinator.next_batch(0, 0, 1), timeout=10)

    share = asyncio.run(asked())

    assert share.metrics["rollout/replaced_groups_total"] == 2
    assert share.metrics["rollout/dropped_groups"] == 0
    assert share.metrics["rollout/uniform_groups"] == 0.5
    assert share.metrics["rollout/success"] == 0.25  # 2 of 8 episodes
    assert share.denominators.episodes == 4
    assert len(share.places) == 4


def finished(task: Task, *returns: float) -> PlayedGroup:
    episodes = tuple(
        Episode(task, sibling, (Turn((1,), (2,), (-0.1,), 0, value),), "completed", success=value > 0)
        for sibling, value in enumerate(returns)
    )
    return PlayedGroup(*pack(Group(task, episodes), {}))


class SecondHasSpread(WithoutWorkers):
    async def _play(self, task: Task, *_: Any) -> PlayedGroup:
        first = task == task_at("tictactoe", 0, task.index)
        return finished(task, 0.0, 0.0 if first else 1.0)


class SmallGroups(WithoutWorkers):
    async def _play(self, task: Task, *_: Any) -> PlayedGroup:
        return finished(task, 0.0, 0.0)


class NotesOpponents(WithoutWorkers):
    """Plays no group; notes with which version of the past store each would be played."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.noted: list[int | None] = []
        self._pool.play = self._note  # type: ignore[method-assign, assignment]

    async def _note(self, task: Task, size: int, version: int, **more: Any) -> PlayedGroup:
        self.noted.append(more["past_version"])
        return finished(task, 1.0, -1.0)


def test_a_share_of_the_groups_meets_past_versions_and_the_newest_of_them() -> None:
    async def noted(share: float) -> list[int | None]:
        config = TrainConfig.parse(
            {
                "on_alarm": "warn",
                "self_play": {"past_share": share},
                "rollout": {"groups_per_step": 200, "group_size": 2},
                "steps": 2,
            }
        )
        coordinator = NotesOpponents(config.dump(), "", "")
        await coordinator.begin(0, 0, past_version=3)
        await asyncio.wait_for(coordinator.next_batch(0, 0, 1), timeout=10)
        await coordinator.published(1, 4)
        await asyncio.wait_for(coordinator.next_batch(1, 0, 1), timeout=10)
        return coordinator.noted

    assert set(asyncio.run(noted(0.0))) == {None}
    half = asyncio.run(noted(0.5))
    assert set(half[:200]) == {None, 3}
    assert set(half[200:]) == {None, 4}
    assert 70 < half[:200].count(3) < 130
    assert half == asyncio.run(noted(0.5))


class SucceedsAlways(WithoutWorkers):
    async def _play(self, task: Task, *_: Any) -> PlayedGroup:
        return finished(task, 1.0, 2.0)


def test_a_resumed_run_takes_up_its_curriculum_from_the_checkpoint() -> None:
    """The first step ends the first stage; the second step, resumed or not, plays the next one."""

    async def steps(first: int, achieved: Any) -> tuple[list[dict[str, float]], Any]:
        config = TrainConfig.parse(
            {
                "on_alarm": "warn",
                "steps": 2,
                "rollout": {"groups_per_step": 4, "group_size": 2},
                "curriculum": {
                    "stages": [{"name": "easy"}, {"name": "hard", "kwargs": {"opponent": "minimax"}}],
                    "order": {"kind": "success", "advance_at": 0.9, "window_groups": 4, "review_share": 0.0},
                },
            }
        )
        coordinator = SucceedsAlways(config.dump(), "", "")
        await coordinator.begin(first, 0, achieved=achieved)
        metrics, held = [], None
        for step in range(first, 2):
            share = await asyncio.wait_for(coordinator.next_batch(step, 0, 1), timeout=10)
            held = held or (await coordinator.state())["achieved"].copy()
            curriculum = {name: value for name, value in share.metrics.items() if name.startswith("curriculum/")}
            metrics.append(curriculum)
            await coordinator.published(step + 1)
        return metrics, held

    whole, held = asyncio.run(steps(0, None))
    resumed, _ = asyncio.run(steps(1, held))

    assert whole[0] == {"curriculum/stage": 0.0, "curriculum/easy_success": 1.0, "curriculum/easy_groups_total": 4.0}
    assert whole[1] == {"curriculum/stage": 1.0, "curriculum/hard_success": 1.0, "curriculum/hard_groups_total": 4.0}
    assert resumed == whole[1:]
