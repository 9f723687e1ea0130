"""What is told of an episode is held against what its environment returned."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from envs.base import Observation, StepResult
from training.checks.episodes import Books, books_alarm, ends_alarm
from training.types import Episode, Task, Turn

TASK = Task("game", 3, 0)


def turn(reward: float, ids: tuple[int, ...] = (5, 2), finish: str = "stop") -> Turn:
    return Turn((1,), ids, (-0.1,) * len(ids), 0, reward, finish_reason=finish)


def noted(*rewards: float, over: bool = True, truncated: bool = False) -> Books:
    books = Books()
    for index, reward in enumerate(rewards):
        last = index == len(rewards) - 1
        result = StepResult(Observation(""), reward, over and last, truncated and last, False, {})
        books.note(result)
    return books


def episode(*rewards: float, **changes: Any) -> Episode:
    return Episode(TASK, 1, tuple(turn(reward) for reward in rewards), **({"end": "completed"} | changes))


LIMIT = {"end": "truncated", "truncation": "turn_cap"}


def test_an_episode_as_it_was_raises_no_alarm() -> None:
    assert books_alarm(episode(0.0, 1.0), noted(0.0, 1.0), None, False) is None
    cut = episode(0.0, -1.0, **LIMIT)  # the second reward was 0: cut short, it counts as lost
    assert books_alarm(cut, noted(0.0, 0.0, over=False), -1.0, False) is None
    by_env = episode(0.5, end="truncated", truncation="environment")
    assert books_alarm(by_env, noted(0.5, over=False, truncated=True), -1.0, False) is None


@pytest.mark.parametrize(
    ("told", "books", "check"),
    [
        (episode(0.0), noted(0.0, over=False), "environment's books"),  # a failure, told as completed
        (episode(0.0, 0.0), noted(0.0), "environment's books"),
        (episode(0.0, 1.0), noted(0.0, 0.5), "environment's books"),
        (episode(0.0, 0.0), noted(0.0, 0.5), "environment's books"),
        (episode(0.0, end="truncated", truncation="environment"), noted(0.0), "environment's books"),
        (episode(0.0, math.nan), noted(0.0, math.nan), "finite numbers"),
        (episode(0.0, 0.0, **LIMIT), noted(0.0, 0.0, over=False), "cut short"),
    ],
)
def test_what_did_not_happen_is_noticed(told: Episode, books: Books, check: str) -> None:
    alarm = books_alarm(told, books, -1.0, False)
    assert alarm is not None
    assert alarm.check == check
    assert "game seed 3, sibling 1" in alarm.message


def test_a_setting_lets_a_cut_episode_keep_what_it_had() -> None:
    assert books_alarm(episode(0.0, 0.5, **LIMIT), noted(0.0, 0.5, over=False), -1.0, as_played=True) is None


def test_an_answer_that_ended_by_itself_ends_with_the_end_of_a_turn() -> None:
    whole = episode(0.0, 1.0)
    assert ends_alarm(whole, {2}) is None
    by_length = replace(whole, turns=(turn(0.0, (5, 6), "length"),))
    assert ends_alarm(by_length, {2}) is None
    alarm = ends_alarm(replace(whole, turns=(turn(0.0), turn(1.0, (5, 6)))), {2})
    assert alarm is not None
    assert "turn 1" in alarm.message
