"""Environments of verifiers as ours, on a stand-in that has the library's interface."""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from envs import registry
from envs.base import Env, EnvUsageError, EpisodeOver, SettingError
from envs.bridges import remote, verifiers
from envs.bridges.wire import EnvRaised


def forget() -> None:
    verifiers._loaded.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == "verifiers"]:
        del sys.modules[name]


@pytest.fixture(autouse=True)
def library(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(Path(__file__).parent / "libraries")
    forget()
    yield
    forget()


def made(name: str = "Environment", **settings: Any) -> Env:
    return registry.make(f"verifiers:{name}", **settings)


def right(env: Env) -> str:
    return env.expert_action(random.Random(0))


def test_a_single_turn_is_a_row_of_the_dataset_scored_by_the_rubric() -> None:
    env = made(expert="<answer>{answer}</answer>")
    first = env.reset(3)
    assert first.earlier == (("system", "Add."),)
    number = int(first.text.split()[0])

    won = env.step(f"<answer>{2 * number}</answer>")

    assert (won.reward, won.terminated, won.truncated, won.success) == (1.2, True, False, True)
    assert won.info == {"parse_ok": True, "illegal": False, "rewards": {"right": 1.0, "turns": 1.0}}
    with pytest.raises(EpisodeOver):
        env.step("?")
    env.reset(3)
    assert env.step(right(env)).success
    env.reset(3)
    lost = env.step("I do not know")
    assert (lost.reward, lost.success, lost.info["parse_ok"]) == (0.2, False, False)
    env.close()


def test_several_turns_go_on_with_what_the_environment_says() -> None:
    env = made("Several", expert="<answer>{answer}</answer>")
    env.reset(3)
    first = env.step("hm")
    assert (first.observation.text[:4], first.reward, first.terminated) == ("No (", 0.0, False)
    won = env.step(right(env))
    assert (won.terminated, won.truncated, won.success, won.info["rewards"]["turns"]) == (True, False, True, 2.0)
    env.reset(3)
    cut = [env.step("hm") for _ in range(3)][-1]
    assert (cut.terminated, cut.truncated, cut.success) == (False, True, False)
    env.close()


def test_the_seed_decides_the_row_and_what_the_library_draws() -> None:
    def shown(seed: int) -> tuple[str, str]:
        env = made("Several")
        seen = env.reset(seed).text, env.step("hm").observation.text
        env.close()
        return seen

    random.seed(1)
    expected = random.random()
    random.seed(1)
    assert [shown(seed) for seed in range(9)] == [shown(seed) for seed in range(9)]
    assert len({shown(seed) for seed in range(9)}) > 5
    assert random.random() == expected


def test_splits_share_no_row_and_an_evaluation_set_of_their_own_is_the_held_out_one() -> None:
    def rows(name: str, split: str) -> set[str]:
        env = made(name, split=split)
        seen = {env.reset(seed).text for seed in range(60)}
        env.close()
        return seen

    train, heldout = rows("Environment", "train"), rows("Environment", "heldout")
    assert len(train) > 10
    assert heldout
    assert not train & heldout
    assert rows("WithEvaluation", "heldout") == {"1000 + 1000?"}
    assert len(rows("WithEvaluation", "train") - train) > 0


def test_an_episode_that_is_left_is_cleaned_up_by_the_next() -> None:
    env = made("Several")
    env.reset(1)
    env.step("hm")
    assert env.reset(2).text
    env.close()
    env.close()
    with pytest.raises(EpisodeOver):
        env.step("hm")


def test_a_parser_that_raises_finds_no_answer() -> None:
    env = made("Several")
    env.reset(1)
    assert env.step("hm").info["parse_ok"] is False
    assert env.step("<answer>explode</answer>").info["parse_ok"] is False
    env.close()


def test_what_their_rollout_reports_as_its_error_is_a_fault_and_no_reward() -> None:
    env = made()
    env.reset(1)
    with pytest.raises(RuntimeError, match=r"failed: OSError\('disk is full'\)"):
        env.step("disk")
    env.close()


def test_a_reward_function_that_raises_is_a_fault_and_no_zero() -> None:
    """The library logs it and scores 0."""
    env = made()
    env.reset(1)
    with pytest.raises(RuntimeError, match=r"could not score: judged: ConnectionError: the judge is down"):
        env.step("judge")
    env.reset(1)
    assert env.step("hm").reward == 0.2
    env.close()


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("OfGroups", {}, "scores several answers together"),
        ("Nowhere", {}, "verifiers:Nowhere cannot be loaded with {}: ValueError: Could not import"),
        ("Environment", {"cols": 3}, 'cannot be loaded with {"cols": 3}: TypeError'),
    ],
)
def test_what_cannot_be_played_is_told_when_it_is_made(name: str, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(EnvUsageError, match=said):
        made(name, **settings)


def test_what_this_adapter_does_not_is_told_when_it_comes_up() -> None:
    with pytest.raises(EnvUsageError, match="gives the policy tools"):
        made("WithTools").reset(1)
    env = made("Rewriting")
    env.reset(1)
    with pytest.raises(EnvUsageError, match="rewrites the chat"):
        env.step("hm")
    env.close()
    with pytest.raises(SettingError, match="split must be one of"):
        made(split="test")
    env = made(expert="{solution}")
    env.reset(1)
    with pytest.raises(SettingError, match="the rows have prompt, answer, example_id, and no 'solution'"):
        right(env)
    env.close()


def test_without_the_library_or_with_its_newer_interface_the_error_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "verifiers", None)
    with pytest.raises(EnvUsageError, match=r"needs the library verifiers .*env\.packages: .*env\.python"):
        made()
    monkeypatch.setitem(sys.modules, "verifiers", type(sys)("verifiers"))
    with pytest.raises(EnvUsageError, match="has no load_environment"):
        made()


async def test_in_the_loop_of_a_worker_it_asks_for_a_process() -> None:
    assert registry.load("verifiers:Environment").isolated
    with pytest.raises(EnvUsageError, match=r"set env\.isolation to process"):
        made().reset(1)
    assert await asyncio.to_thread(lambda: remote.started("verifiers:Environment", {}).reset(3).text)


def test_in_a_process_it_plays_what_it_plays_here() -> None:
    there, here = remote.started("verifiers:Several", {}), made("Several")
    assert there.reset(3) == here.reset(3)
    assert there.step("hm") == here.step("hm")
    with pytest.raises(EnvRaised, match="RuntimeError: verifiers:Several failed"):
        there.step("disk")
    there.close()
    here.close()
