"""Episodes end one way each; a failure is never a reward, and a reward is a finite number."""

from __future__ import annotations

import asyncio
import math
import threading
from dataclasses import replace
from itertools import chain, repeat
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from deployments.errors import PolicyError
from deployments.protocol.generate import GenerateRequest, GenerateResult
from envs.base import Observation, StepResult
from envs.games.tictactoe import TicTacToe
from tests.unit.training.rollouts.players import TASK, player, policy
from training.rendering.renderer import ChatRenderer
from training.rollouts.episode import request_seed, run_episode
from training.rollouts.packed import pack
from training.tracking.metrics import rollout_metrics
from training.types import Group, prompts


async def test_an_outage_never_becomes_a_reward(renderer: ChatRenderer) -> None:
    gone = policy(renderer, lambda call: PolicyError("unavailable", "x"))
    failed = await run_episode(player(renderer, gone), TASK, 0)
    assert (failed.end, failed.retryable) == ("infra_failed", True)
    with pytest.raises(ValueError, match="never a zero reward"):
        _ = failed.episode_return


async def test_a_full_history_keeps_each_prompt_and_a_turn_holds_what_was_added(renderer: ChatRenderer) -> None:
    episode = await run_episode(player(renderer, history="full"), TASK, 0)
    whole = list(prompts(episode.turns))
    for before, after, turn in zip(whole, whole[1:], episode.turns, strict=False):
        sent = before + turn.completion_ids
        assert after[: len(sent)] == sent
    held = sum(len(turn.added_ids) + len(turn.completion_ids) for turn in episode.turns)
    assert held == len(whole[-1]) + len(episode.turns[-1].completion_ids)


async def test_a_full_context_truncates_the_episode_and_is_named(renderer: ChatRenderer) -> None:
    short = player(renderer, history="full", max_model_len=64)
    episode = await run_episode(short, TASK, 0)
    assert (episode.end, episode.truncation, episode.error) == ("truncated", "context_full", "")
    assert short.hooks.counts["truncated_context_full"] == 1


async def test_the_cap_on_turns_and_the_environments_own_limit_are_told_apart(renderer: ChatRenderer) -> None:
    class Limited(TicTacToe):
        def step(self, action: str) -> StepResult:
            return replace(super().step(action), terminated=False, truncated=True)

    assert (await run_episode(player(renderer, max_turns=1), TASK, 0)).truncation == "turn_cap"
    assert (await run_episode(player(renderer, make=Limited), TASK, 0)).truncation == "environment"


class Rewarding(TicTacToe):
    reward: Any = 0.0

    def step(self, action: str) -> StepResult:
        return replace(super().step(action), reward=self.reward)


@pytest.mark.parametrize("reward", [None, "1", math.nan, math.inf, -math.inf, np.float32("nan"), np.array([1.0, 2.0])])
async def test_a_reward_that_is_no_finite_number_fails_the_episode_with_name_and_seed(
    renderer: ChatRenderer, reward: Any
) -> None:
    cls = type("Broken", (Rewarding,), {"reward": reward})
    episode = await run_episode(player(renderer, make=cls), TASK, 0)
    assert episode.end == "env_failed"
    assert "tictactoe step, seed 5" in episode.error
    assert episode.turns == ()


@pytest.mark.parametrize("reward", [np.float32(0.5), np.array(0.5), np.float64(0.5)])
async def test_numpys_numbers_are_rewards_and_become_pythons(renderer: ChatRenderer, reward: Any) -> None:
    cls = type("Numpy", (Rewarding,), {"reward": reward})
    episode = await run_episode(player(renderer, make=cls), TASK, 0)
    assert {type(turn.reward) for turn in episode.turns} == {float}
    assert episode.turns[0].reward == 0.5


class InParts(TicTacToe):
    parts: Any = None

    def step(self, action: str) -> StepResult:
        result = super().step(action)
        return replace(result, info={**result.info, "rewards": self.parts})


async def test_named_parts_of_a_reward_reach_the_metrics(renderer: ChatRenderer) -> None:
    cls = type("Named", (InParts,), {"parts": {"won": np.float32(0.5), "format": 1}})
    episode = await run_episode(player(renderer, make=cls), TASK, 0)
    summary, _ = pack(Group(TASK, (episode,)), {})
    turns = len(episode.turns)
    metrics = rollout_metrics([summary])
    assert (metrics["reward/won"], metrics["reward/format"]) == (0.5 * turns, 1.0 * turns)


@pytest.mark.parametrize("parts", [{"won": math.nan}, {"won": "1"}, 3])
async def test_parts_of_a_reward_that_are_no_finite_numbers_fail_the_episode(
    renderer: ChatRenderer, parts: Any
) -> None:
    episode = await run_episode(player(renderer, make=type("Broken", (InParts,), {"parts": parts})), TASK, 0)
    assert episode.end == "env_failed"
    assert "tictactoe step, seed 5" in episode.error


@pytest.mark.parametrize(
    "wrong", [{"tools": ({"name": {1, 2}},)}, {"earlier": (("tool", "x"),)}, {"earlier": (("user", "\ud800"),)}]
)
async def test_what_no_chat_template_can_take_fails_the_episode(renderer: ChatRenderer, wrong: Any) -> None:
    class Broken(TicTacToe):
        def reset(self, seed: int) -> Observation:
            return replace(super().reset(seed), **wrong)

    episode = await run_episode(player(renderer, make=Broken), TASK, 0)
    assert episode.end == "env_failed"
    assert "tictactoe reset, seed 5" in episode.error


@pytest.mark.parametrize("value", [math.nan, -math.inf, math.inf])
async def test_an_answer_without_finite_log_probabilities_is_tried_again(renderer: ChatRenderer, value: float) -> None:
    watched = player(renderer, policy(renderer, logprob=lambda call: value))
    episode = await run_episode(watched, TASK, 0)
    assert (episode.end, episode.retryable, episode.turns) == ("infra_failed", True, ())
    assert watched.hooks.counts["answers_nonfinite_logprobs"] == 1


class Surrogate(TicTacToe):
    def reset(self, seed: int) -> Observation:
        return Observation("board \ud800")


class NoReset(TicTacToe):
    def reset(self, seed: int) -> Observation:
        raise KeyError("level")


class NoMake(TicTacToe):
    def __init__(self) -> None:
        raise OSError("no simulator")


class NoResult(TicTacToe):
    def step(self, action: str) -> StepResult:
        return None  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("cls", "what"), [(Surrogate, "reset"), (NoReset, "reset"), (NoMake, "make"), (NoResult, "step")]
)
async def test_whatever_an_environment_does_wrong_is_its_failure_and_names_the_seed(
    renderer: ChatRenderer, cls: type[TicTacToe], what: str
) -> None:
    episode = await run_episode(player(renderer, make=cls), TASK, 0)
    assert episode.end == "env_failed"
    assert episode.error.startswith(f"tictactoe {what}, seed 5: ")


async def test_an_environment_that_cannot_be_closed_does_not_undo_its_episode(renderer: ChatRenderer) -> None:
    class Unclosable(TicTacToe):
        def close(self) -> None:
            raise RuntimeError("socket is gone")

    watched = player(renderer, make=Unclosable)
    assert (await run_episode(watched, TASK, 0)).ok
    assert watched.hooks.counts["env_close_failed"] == 1


async def test_an_environment_that_blocks_leaves_the_other_episodes_their_turn(renderer: ChatRenderer) -> None:
    stepping, go_on = threading.Event(), threading.Event()

    class Waiting(TicTacToe):
        def step(self, action: str) -> StepResult:
            stepping.set()
            assert go_on.wait(60)
            return super().step(action)

    waiting = asyncio.create_task(run_episode(player(renderer, make=Waiting, blocking=True), TASK, 0))
    assert await asyncio.to_thread(stepping.wait, 60)
    other = await run_episode(player(renderer), TASK, 1)  # ends, although the first waits
    assert other.ok
    assert not waiting.done()
    go_on.set()
    assert (await waiting).ok


async def test_a_blocking_environment_that_hangs_is_named_after_its_own_deadline(renderer: ChatRenderer) -> None:
    go_on = threading.Event()

    class Hanging(TicTacToe):
        def reset(self, seed: int) -> Observation:
            go_on.wait()
            return super().reset(seed)

    episode = await run_episode(player(renderer, make=Hanging, blocking=True, step_timeout_s=0.01), TASK, 0)
    go_on.set()
    assert episode.end == "env_failed"
    assert episode.error == "tictactoe reset, seed 5 has not returned in time (env.step_timeout_s is 0.01)"


async def test_all_calls_of_a_blocking_environment_come_from_one_thread(renderer: ChatRenderer) -> None:
    threads = set()

    class Picky(TicTacToe):
        def __init__(self) -> None:
            threads.add(threading.get_ident())
            super().__init__()

        def step(self, action: str) -> StepResult:
            threads.add(threading.get_ident())
            return super().step(action)

    assert (await run_episode(player(renderer, make=Picky, blocking=True), TASK, 0)).ok
    assert len(threads) == 1
    assert threads != {threading.get_ident()}


def test_a_requests_seed_depends_on_its_place_alone(renderer: ChatRenderer) -> None:
    settings = player(renderer).settings
    assert request_seed(settings, TASK, 0, 0) == request_seed(settings, TASK, 0, 0)
    assert len({request_seed(settings, TASK, sibling, turn) for sibling in range(8) for turn in range(9)}) == 72


async def test_a_sampler_is_told_where_a_turn_ends(chat_folders: dict[str, Path]) -> None:
    renderer = ChatRenderer.load(str(chat_folders["chatml"]))
    renderer.tokenizer.eos_token_id = renderer.tokenizer.encode("<|endoftext|>")[0]  # the end of a text
    asked: list[GenerateRequest] = []
    answer = policy(renderer)

    async def generate(request: GenerateRequest) -> GenerateResult:
        asked.append(request)
        return cast(GenerateResult, await answer(request))

    episode = await run_episode(player(renderer, generate), TASK, 0)
    assert episode.ok, episode.error
    assert {request.sampling.stop_token_ids for request in asked} == {(renderer.end_id,)}


@pytest.mark.parametrize(
    ("played", "cut_short", "expected"), [(0.3, "failed", -1.0), (-2.0, "failed", -2.0), (0.3, "as_played", 0.3)]
)
@pytest.mark.parametrize("limit", ["turn_cap", "context_full"])
async def test_an_episode_that_a_limit_ends_is_worth_no_more_than_a_lost_one(
    renderer: ChatRenderer, played: float, cut_short: str, expected: float, limit: str
) -> None:
    """Else the best policy fills its context."""

    rewards = chain([played], repeat(0.0))

    class Endless(TicTacToe):
        def step(self, action: str) -> StepResult:
            return replace(super().step(action), reward=next(rewards), terminated=False, truncated=False)

    limits: dict[str, Any] = {"max_turns": 1} if limit == "turn_cap" else {"history": "full", "max_model_len": 64}
    episode = await run_episode(player(renderer, make=Endless, cut_short=cut_short, **limits), TASK, 0)
    assert episode.truncation == limit
    assert episode.episode_return == pytest.approx(expected)
