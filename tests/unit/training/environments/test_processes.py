"""Episodes in processes of their own: one that hangs or crashes is lost alone, and the others play what they always
play."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from configs.base import ConfigError
from configs.rollouts import EnvConfig
from configs.training import TrainConfig
from deployments.protocol.generate import GenerateRequest, GenerateResult
from envs.base import EnvUsageError, Observation, StepResult
from envs.bridges.child import EnvProcess
from envs.games.tictactoe import TicTacToe
from tests.unit.training.rollouts.players import player
from training.checks.failures import EnvironmentFailed
from training.environments.calls import EnvCalls, Hooks
from training.environments.processes import EnvProcesses, isolation_of, opened
from training.rendering.renderer import ChatRenderer
from training.rollouts import worker
from training.rollouts.episode import run_episode
from training.rollouts.group import run_group
from training.rollouts.player import Player
from training.types import Task

FAULTY = "tests.unit.envs.bridges.faulty"
Pool = Callable[[int], EnvProcesses]


@pytest.fixture
async def pool() -> AsyncIterator[Pool]:
    """Makes pools; at the end nothing of them may be left."""
    pools: list[EnvProcesses] = []
    started: list[EnvProcess] = []

    def start(python: str | None) -> EnvProcess:
        started.append(EnvProcess(python))
        return started[-1]

    def made(most: int) -> EnvProcesses:
        pools.append(EnvProcesses(most, start=start))
        return pools[-1]

    yield made
    for each in pools:
        each.close()
    for process in started:
        process.join()
        with pytest.raises(ProcessLookupError):
            os.kill(process.pid, 0)


def in_processes(renderer: ChatRenderer, processes: EnvProcesses | None, name: str, **options: Any) -> Player:
    """A player whose answer depends on the place of its request alone."""

    async def generate(request: GenerateRequest) -> GenerateResult:
        cell = random.Random(request.sampling.seed).randrange(1, 10)
        ids = [*renderer.answer(f"<move>{cell}</move>")]
        return GenerateResult(request.request_id, ids, [-1.0] * len(ids), request.min_weight_version, "stop")

    return replace(player(renderer, generate, name=name, **options), processes=processes)


async def played(seed: int, processes: EnvProcesses | None) -> list[Observation | StepResult]:
    """An episode with random answers, as a rollout calls its environment."""
    calls, rng = EnvCalls("tictactoe", seed, Hooks(), False, 120.0, processes), random.Random(seed)
    await calls.make(TicTacToe, {})
    seen: list[Observation | StepResult] = [await calls.reset()]
    while True:
        result = await calls.step(f"<move>{rng.randrange(1, 10)}</move>")
        seen.append(result)
        if result.terminated or result.truncated:
            await calls.close()
            return seen


async def test_a_thousand_episodes_over_four_processes_are_those_that_play_here(pool: Pool) -> None:
    processes = pool(4)
    found = await asyncio.gather(*(played(seed, processes) for seed in range(1000)))
    assert found == [await played(seed, None) for seed in range(1000)]


async def test_a_rollout_cannot_tell_where_its_environment_plays(renderer: ChatRenderer, pool: Pool) -> None:
    there, here = in_processes(renderer, pool(2), "tictactoe"), in_processes(renderer, None, "tictactoe")
    for seed in range(4):
        found, expected = [await run_episode(side, Task("tictactoe", seed), 0) for side in (there, here)]
        assert found.ok
        assert replace(found, episode_s=0.0) == replace(expected, episode_s=0.0)


async def test_an_environment_that_sleeps_for_ever_is_killed_alone(renderer: ChatRenderer, pool: Pool) -> None:
    processes = pool(3)
    patient = in_processes(renderer, processes, f"{FAULTY}:Hanging", step_timeout_s=120.0)
    hasty = in_processes(renderer, processes, f"{FAULTY}:Hanging", step_timeout_s=2.0)
    name = patient.settings.env.name
    assert (await run_episode(patient, Task(name, 0), 0)).ok  # a process that has loaded what it needs
    (ready,) = processes._idle

    hanging = asyncio.create_task(run_episode(hasty, Task(name, 7), 0))
    others = await asyncio.gather(*(run_episode(patient, Task(name, seed), 0) for seed in range(2, 14, 2)))
    lost = await hanging

    assert [episode.end for episode in others] == ["completed"] * 6
    assert lost.end == "env_failed"
    assert lost.error == f"{name} step, seed 7 has not returned in time (env.step_timeout_s is 2)"
    assert hasty.hooks.counts == {"env_calls_hung": 1, "episodes_env_failed": 1}
    assert ready.join() == -9
    assert ready not in processes._idle
    assert (await run_episode(patient, Task(name, 12), 0)).ok


async def test_an_environment_that_exits_fails_its_episode_with_the_cause(renderer: ChatRenderer, pool: Pool) -> None:
    watched = in_processes(renderer, pool(1), f"{FAULTY}:Exiting")
    name = watched.settings.env.name

    lost, other = await asyncio.gather(*(run_episode(watched, Task(name, seed), 0) for seed in (1, 2)))

    assert (lost.end, lost.turns) == ("env_failed", ())
    cause = "EnvLost: the environment was lost: its process ended with exit code 3"
    assert lost.error == f"{name} step, seed 1: {cause}"
    assert other.ok  # in a new process: the pool has one place
    assert watched.hooks.counts == {"env_processes_lost": 1, "episodes_env_failed": 1, "episodes_completed": 1}


async def test_an_environment_that_is_lost_twice_ends_the_group_and_is_never_a_reward(
    renderer: ChatRenderer, pool: Pool
) -> None:
    watched = in_processes(renderer, pool(2), f"{FAULTY}:Exiting")
    with pytest.raises(EnvironmentFailed, match=r"seed 1, sibling 0: the environment failed twice: .*exit code 3"):
        await run_group(watched, Task(watched.settings.env.name, 1), 1)


async def test_an_episode_that_is_cancelled_in_a_call_takes_its_process_along(
    renderer: ChatRenderer, pool: Pool
) -> None:
    processes = pool(1)
    watched = in_processes(renderer, processes, f"{FAULTY}:Hanging")
    called = asyncio.Event()
    process = await processes.take()
    original = process.call

    def noted(request: Any, *limit: Any) -> Any:
        if request["call"] == "step":
            loop.call_soon_threadsafe(called.set)
        return original(request, *limit)

    loop = asyncio.get_running_loop()
    process.call = noted  # type: ignore[method-assign]
    processes.give_back(process)
    playing = asyncio.create_task(run_episode(watched, Task(watched.settings.env.name, 1), 0))
    for _ in range(3):  # the third step hangs
        await called.wait()
        called.clear()
    playing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await playing

    assert process.join() == -9
    assert (await run_episode(watched, Task(watched.settings.env.name, 2), 0)).ok


async def test_episodes_wait_for_a_free_process(pool: Pool) -> None:
    processes = pool(1)
    first = await processes.take()
    waiting = asyncio.create_task(processes.take())
    await asyncio.sleep(0)
    assert not waiting.done()

    first.call({"call": "make", "name": "tictactoe", "settings": {}})
    processes.give_back(first)

    assert await waiting is first
    processes.give_back(first)


async def test_a_process_that_died_between_two_episodes_is_replaced(pool: Pool) -> None:
    processes = pool(1)
    first = await processes.take()
    first.call({"call": "make", "name": "tictactoe", "settings": {}})
    processes.give_back(first)
    os.kill(first.pid, 9)
    await asyncio.to_thread(os.waitid, os.P_PID, first.pid, os.WEXITED | os.WNOWAIT)

    second = await processes.take()

    assert second is not first
    assert second.usable
    processes.give_back(second)


async def test_a_process_that_cannot_start_frees_its_place_and_fails_the_episode(renderer: ChatRenderer) -> None:
    processes = EnvProcesses(1, "/nowhere/python")
    for _ in range(2):
        with pytest.raises(EnvUsageError, match="/nowhere/python cannot be started"):
            await processes.take()
    episode = await run_episode(in_processes(renderer, processes, "tictactoe"), Task("tictactoe", 5), 0)
    assert episode.end == "env_failed"
    assert episode.error.startswith("tictactoe make, seed 5: EnvUsageError: the interpreter /nowhere/python")


def test_the_settings_decide_where_an_environment_plays_and_else_its_class(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isolation_of(EnvConfig()) == "none"
    assert isolation_of(EnvConfig(isolation="thread")) == "thread"
    assert isolation_of(EnvConfig(name="not_there:Env", python="/venv/bin/python")) == "process"
    monkeypatch.setattr(TicTacToe, "blocking", True)
    assert isolation_of(EnvConfig()) == "thread"
    monkeypatch.setattr(TicTacToe, "isolated", True)
    assert isolation_of(EnvConfig()) == "process"
    assert isolation_of(EnvConfig(isolation="none")) == "none"


def test_another_interpreter_without_a_process_is_no_configuration() -> None:
    with pytest.raises(ConfigError, match=r"env\.python runs environments in processes"):
        TrainConfig.parse({"env": {"python": "/venv/bin/python", "isolation": "thread"}})


def test_one_environment_is_opened_where_its_settings_say() -> None:
    here, there = opened(EnvConfig(), {}), opened(EnvConfig(isolation="process"), {})
    assert type(here) is TicTacToe
    assert type(there) is not TicTacToe
    assert there.reset(7) == here.reset(7)
    there.close()


async def test_a_worker_plays_as_many_episodes_at_once_as_it_has_processes(
    monkeypatch: pytest.MonkeyPatch, policy_folder: Path, renderer: ChatRenderer
) -> None:
    playing: set[Task] = set()
    most = 0
    answer = in_processes(renderer, None, "tictactoe").generate

    async def generate(request: GenerateRequest) -> GenerateResult:
        nonlocal most
        playing.add(request.session_id)
        most = max(most, len(playing))
        await asyncio.sleep(0)
        result = await answer(request)
        playing.discard(request.session_id)
        return result

    monkeypatch.setattr(worker, "serve_generate", lambda config, app: generate)
    config = TrainConfig.parse({"env": {"isolation": "process", "processes": 2}, "rollout": {"group_size": 2}})
    plays = worker.GroupPlayer(config.dump(), str(policy_folder), "app")

    played = await asyncio.gather(
        *(plays.play(Task("tictactoe", seed, seed), 2, 0, False, "", False) for seed in range(4))
    )

    assert all(len(summary.episodes) == 2 for summary, _, _ in played)
    assert most <= 2
    assert plays._processes is not None
    assert len(plays._processes._idle) == 2
    plays._processes.close()
