"""A worker plays as many episodes at the same time as it is told, whatever the size of their groups."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from configs.training import TrainConfig
from deployments.protocol.generate import GenerateRequest, GenerateResult
from envs import registry
from envs.base import Env
from tests.unit.training.rollouts.players import policy
from training.rendering.renderer import ChatRenderer
from training.rollouts import worker
from training.rollouts.worker import GroupPlayer
from training.types import Task

ROOM = 8


@pytest.mark.parametrize(("group_size", "evaluation"), [(1, True), (4, False), (20, False)])
async def test_the_room_counts_episodes_not_groups(
    monkeypatch: pytest.MonkeyPatch, policy_folder: Path, renderer: ChatRenderer, group_size: int, evaluation: bool
) -> None:
    """Evaluation plays groups of one: once each of them took the room of a whole group."""
    answer, together = policy(renderer), Together()

    async def generate(request: GenerateRequest) -> GenerateResult:
        async with together:
            result: GenerateResult = await answer(request)
            return result

    monkeypatch.setattr(worker, "serve_generate", lambda config, app, policy="": generate)
    rollout: dict[str, Any] = {"group_size": 4, "max_concurrent_episodes": ROOM}
    config = TrainConfig.parse({"env": {"name": "tictactoe"}, "rollout": rollout})
    plays = GroupPlayer(config.dump(), str(policy_folder), "app")

    tasks = [Task("tictactoe", seed, seed) for seed in range(40 // group_size)]
    await asyncio.gather(*(plays.play(task, group_size, 0, evaluation, "", False) for task in tasks))

    assert together.most == ROOM


class Together:
    """How many were inside at the same time, at most."""

    def __init__(self) -> None:
        self.now = self.most = 0

    async def __aenter__(self) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0)  # whoever may come in, too, does

    async def __aexit__(self, *error: object) -> None:
        self.now -= 1


@pytest.mark.parametrize(("evaluation", "played"), [(False, ["minimax"]), (True, ["random"])])
async def test_a_group_plays_the_environment_of_its_stage_and_the_evaluation_does_not(
    monkeypatch: pytest.MonkeyPatch, policy_folder: Path, renderer: ChatRenderer, evaluation: bool, played: list[str]
) -> None:
    answer, made = policy(renderer), list[str]()

    def make(name: str, **settings: Any) -> Env:
        made.append(settings["opponent"])
        return registry.make(name, **settings)

    monkeypatch.setattr(worker, "serve_generate", lambda config, app, policy="": answer)
    monkeypatch.setattr(worker, "make_env", make)
    stages = [{"name": "easy"}, {"name": "hard", "kwargs": {"opponent": "minimax"}}]
    env = {"name": "tictactoe", "kwargs": {"opponent": "random"}}
    config = TrainConfig.parse({"env": env, "curriculum": {"stages": stages}})
    plays = GroupPlayer(config.dump(), str(policy_folder), "app")

    await plays.play(Task("tictactoe", 1, 1, stage="hard"), 1, 0, evaluation, "", False)

    assert made == played
