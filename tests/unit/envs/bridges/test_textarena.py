"""Games of textarena as ours, on a stand-in that has the library's interface."""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from envs import registry
from envs.base import Env, EnvUsageError, EpisodeOver, SettingError
from envs.registry import UnknownEnvironment


@pytest.fixture(autouse=True)
def library(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(Path(__file__).parent / "libraries")
    monkeypatch.delitem(sys.modules, "textarena", raising=False)
    yield
    sys.modules.pop("textarena", None)


def nim(**settings: Any) -> Env:
    return registry.make("textarena:Nim-v0", players=2, **settings)


def played(game: Env, seed: int) -> list[tuple[str, float, str]]:
    rng = random.Random(seed)
    seen = [(game.reset(seed).text, 0.0, "")]
    while True:
        result = game.step(game.expert_action(rng))
        seen.append((result.observation.text, result.reward, str(result.info.get("outcome", ""))))
        if result.terminated or result.truncated:
            return seen


def test_a_game_for_one_is_played_to_its_end() -> None:
    game = registry.make("textarena:Guess-v0", moves=[f"[{number}]" for number in range(10)])
    first = game.reset(3)
    assert first.text.startswith("Find the number")
    results = [game.step(f"[{number}]") for number in range(10) if not game._over]  # type: ignore[attr-defined]
    assert [result.reward for result in results] == [0.0] * (len(results) - 1) + [1.0]
    assert (results[-1].terminated, results[-1].success, results[-1].observation.text) == (True, True, "found")
    with pytest.raises(EpisodeOver):
        game.step("[1]")


def test_an_opponent_that_draws_what_the_game_refuses_draws_again_and_forfeits_nothing() -> None:
    moves = ["[1]", "[2]", *(f"[{number}]" for number in range(3, 12))]
    for seed in range(40):
        game = nim(moves=moves)
        game.reset(seed)
        result = None
        while result is None or not result.terminated:
            left = int(game._seen.text.split()[0])  # type: ignore[attr-defined]
            result = game.step("[2]" if left >= 2 else "[1]")
        lost_by_a_bad_move = game._game.state.game_info[1 - game._seat]["invalid_move"]  # type: ignore[attr-defined]
        assert not lost_by_a_bad_move


def test_the_opponent_draws_from_the_moves_that_the_game_lists_and_both_seats_are_played() -> None:
    ends = [played(nim(), seed)[-1] for seed in range(60)]
    outcomes = Counter(outcome for *_, outcome in ends)
    assert set(outcomes) == {"win", "loss"}
    assert all(reward == (1.0 if outcome == "win" else -1.0) for _, reward, outcome in ends)
    opened = {nim(seat=seat).reset(1).text.split()[0] for seat in (0, 1)}
    assert len(opened) == 2  # in seat 1 the opponent has taken some already


def test_episodes_repeat_and_games_that_take_turns_do_not_disturb_each_other_or_the_program() -> None:
    alone = [played(nim(), seed) for seed in range(8)]
    assert alone == [played(nim(), seed) for seed in range(8)]
    games, rngs = [nim() for _ in range(8)], [random.Random(seed) for seed in range(8)]
    random.seed(1)
    expected = random.random()
    random.seed(1)
    seen = [[(game.reset(seed).text, 0.0, "")] for seed, game in enumerate(games)]
    playing = set(range(8))
    while playing:
        for index in sorted(playing):
            result = games[index].step(games[index].expert_action(rngs[index]))
            seen[index].append((result.observation.text, result.reward, str(result.info.get("outcome", ""))))
            if result.terminated:
                playing.remove(index)
    assert seen == alone
    assert random.random() == expected


def test_a_forbidden_move_is_data_and_the_next_one_loses() -> None:
    game = nim(seat=0)
    game.reset(1)
    first = game.step("three of them")
    assert (dict(first.info), first.reward, first.terminated) == ({"parse_ok": False, "illegal": True}, 0.0, False)
    second = game.step("[3]")
    assert (second.info["outcome"], second.reward, second.info["illegal"]) == ("loss", -1.0, True)
    assert second.observation.text == "no such move"
    game.reset(1)
    game.step("nothing")
    assert game.step("[1]").info["illegal"] is False


def test_a_game_that_lists_no_moves_asks_for_them() -> None:
    with pytest.raises(EnvUsageError, match=r"does not list its moves, so none can be drawn: name them, as in moves:"):
        nim(silent=True, seat=1).reset(1)
    assert nim(silent=True, seat=1, moves=["[1]"]).reset(1)


def test_the_turn_limit_truncates() -> None:
    game = nim(seat=0, max_steps=1)
    game.reset(1)
    assert game.step("[1]").truncated
    with pytest.raises(EpisodeOver):
        game.step("[1]")


@pytest.mark.parametrize(
    ("name", "settings", "error", "said"),
    [
        ("Nim-v0", {}, SettingError, r"is not for players: 1 .*; try players: 2"),
        ("Nim-v0", {"players": 3}, SettingError, "players must be 1 or 2"),
        ("Nim-v0", {"players": 2, "seat": 2}, SettingError, r"seat must lie in 0\.\.1"),
        ("Nim-v0", {"players": 2, "moves": "[1]"}, SettingError, "moves must be a list"),
        ("Nim-v0", {"players": 2, "depth": 3}, EnvUsageError, "unexpected keyword argument 'depth'"),
        ("Nom-v0", {}, UnknownEnvironment, "Nom-v0 not found in registry"),
    ],
)
def test_what_cannot_be_made_is_told_when_it_is_made(
    name: str, settings: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        registry.make(f"textarena:{name}", **settings)


def test_without_the_library_the_error_says_how_to_give_it_an_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "textarena", None)
    with pytest.raises(
        EnvUsageError, match=r"needs the library textarena .*env\.packages: \[textarena\], or env\.python"
    ):
        registry.make("textarena:Nim-v0")
