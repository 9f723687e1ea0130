"""What the coordinator tells the driver of the learner's steps."""

from __future__ import annotations

import asyncio
from typing import Any

from configs.training import TrainConfig
from training.rollouts.coordinator import RunCoordinator


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
