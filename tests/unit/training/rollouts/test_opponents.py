"""Self-play: the policy answers for both sides, and only its own side is trained on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from deployments.errors import PolicyError
from deployments.protocol.generate import GenerateRequest, GenerateResult
from envs import registry
from envs.base import Observation, StepResult
from envs.games.tictactoe import TicTacToe
from tests.unit.training.rollouts.players import TASK, player
from training.rendering.renderer import ChatRenderer
from training.rollouts.episode import run_episode
from training.rollouts.group import run_group
from training.rollouts.opponents import joined
from training.rollouts.player import Past
from training.types import Task


def self_play() -> TicTacToe:
    env = registry.make("tictactoe", opponent="policy", max_illegal=None)
    assert isinstance(env, TicTacToe)
    return env


def first_free(renderer: ChatRenderer, asked: list[str]) -> Any:
    """Takes the first free cell of the board it is shown; `asked` collects what it was shown."""

    async def generate(request: GenerateRequest) -> GenerateResult:
        shown = renderer.decode(request.token_ids)
        asked.append(shown)
        board = shown.rpartition("You play")[2]
        cell = next(character for character in board if character.isdigit())
        ids = [*renderer.answer(f"<move>{cell}</move>")]
        return GenerateResult(request.request_id, ids, [-1.0] * len(ids), request.min_weight_version, "stop")

    return generate


async def test_the_policy_answers_for_both_sides_each_with_its_own_view(renderer: ChatRenderer) -> None:
    asked: list[str] = []
    episode = await run_episode(player(renderer, first_free(renderer, asked), make=self_play), TASK, 0)
    assert episode.end == "completed"
    marks = ["X" if "You play X" in shown else "O" for shown in asked]
    own, other = marks[0], "O" if marks[0] == "X" else "X"
    assert marks == [own if number % 2 == 0 else other for number in range(len(marks))]
    assert all(f"You play {own}" in turn.prompt_text for turn in episode.turns)


async def test_a_loss_by_the_others_last_move_is_the_reward_of_the_turn_before(renderer: ChatRenderer) -> None:
    wins = set()
    for seed in range(40):
        episode = await run_episode(player(renderer, make=self_play), Task("tictactoe", seed), 0)
        assert [turn.reward for turn in episode.turns[:-1]] == [0.0] * (len(episode.turns) - 1)
        assert episode.turns[-1].reward == {"win": 1.0, "draw": 0.0, "loss": -1.0}[episode.outcome]
        wins.add(episode.outcome)
    assert {"win", "loss"} <= wins


async def test_groups_of_self_play_pass_the_checks_of_every_run(renderer: ChatRenderer) -> None:
    for seed in range(8):
        group = await run_group(player(renderer, make=self_play), Task("tictactoe", seed), 4)
        assert len({episode.turns[0].added_ids for episode in group.episodes}) == 1


async def test_illegal_answers_of_the_other_side_are_counted_and_win_the_game(renderer: ChatRenderer) -> None:
    own_side = first_free(renderer, [])

    async def other_side_says_nothing(request: GenerateRequest) -> GenerateResult:
        if "opponent" not in request.session_id:
            result: GenerateResult = await own_side(request)
            return result
        ids = [*renderer.answer("?")]
        return GenerateResult(request.request_id, ids, [-1.0] * len(ids), 0, "stop")

    playing = player(renderer, other_side_says_nothing, make=lambda: TicTacToe(opponent="policy"))
    episode = await run_episode(playing, TASK, 0)
    assert (episode.outcome, len(episode.turns), episode.turns[0].illegal) == ("win", 1, False)
    assert playing.hooks.counts["opponent_illegal"] == 3


async def test_an_outage_while_the_other_side_is_asked_is_no_reward(renderer: ChatRenderer) -> None:
    own_side = first_free(renderer, [])

    async def generate(request: GenerateRequest) -> GenerateResult:
        if "opponent" in request.session_id:
            raise PolicyError("unavailable", "x")
        return await own_side(request)

    episode = await run_episode(player(renderer, generate, make=self_play), TASK, 0)
    assert (episode.end, len(episode.turns)) == ("infra_failed", 0)


def test_the_rewards_of_step_and_reply_add_up_and_the_end_is_the_replys() -> None:
    own = StepResult(
        Observation("a"), 0.25, False, False, False, {"parse_ok": True, "illegal": False, "rewards": {"x": 1.0}}
    )
    reply = StepResult(
        Observation("b"),
        -1.0,
        True,
        False,
        False,
        {"parse_ok": False, "illegal": True, "outcome": "loss", "rewards": {"x": 0.5, "y": 2.0}},
    )
    both = joined(own, reply)
    assert (both.observation.text, both.reward, both.terminated) == ("b", -0.75, True)
    assert both.info == {"parse_ok": True, "illegal": False, "outcome": "loss", "rewards": {"x": 1.5, "y": 2.0}}


@pytest.mark.parametrize("history", ["none", "full"])
async def test_each_side_remembers_its_own_chat(renderer: ChatRenderer, history: str) -> None:
    asked: list[str] = []
    await run_episode(player(renderer, first_free(renderer, asked), make=self_play, history=history), TASK, 0)
    views = [shown.count("You play") for shown in asked]
    assert views == ([1] * len(asked) if history == "none" else [1 + number // 2 for number in range(len(asked))])


async def test_a_past_version_is_asked_for_the_other_side_alone(renderer: ChatRenderer) -> None:
    own, others = first_free(renderer, shown := []), first_free(renderer, shown_to_past := [])
    wanted: set[int] = set()

    async def past(request: GenerateRequest) -> GenerateResult:
        wanted.add(request.min_weight_version)
        result: GenerateResult = await others(request)
        return result

    playing = replace(player(renderer, own, make=self_play), past=Past(past, 9))
    episode = await run_episode(playing, TASK, 0)
    marks = [{text.split("You play ")[1][0] for text in texts} for texts in (shown, shown_to_past)]
    assert sorted(marks[0] | marks[1]) == ["O", "X"]
    assert len(shown) == len(episode.turns)
    assert wanted == {9}
    assert {turn.weight_version for turn in episode.turns} == {0}
