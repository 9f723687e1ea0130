"""The contract that every registered environment keeps, and the rules of the two games by hand-worked cases."""

from __future__ import annotations

import pickle
import random
import re

import pytest

from envs import registry
from envs.base import Env, EpisodeOver
from envs.games.key_door import KeyDoor
from envs.games.tictactoe import TicTacToe

NAMES = registry.names()


def actions(name: str, seed: int) -> list[str]:
    rng = random.Random(seed)
    words = {"tictactoe": [f"<move>{n}</move>" for n in range(1, 10)] + ["nonsense"]}
    return [rng.choice(words.get(name, ["<action>up</action>", "<action>right</action>", "?"])) for _ in range(60)]


def transcript(env: Env, seed: int, name: str) -> list[tuple[str, float]]:
    seen = [(env.reset(seed).text, 0.0)]
    for action in actions(name, seed):
        result = env.step(action)
        assert "parse_ok" in result.info
        assert not (result.terminated and result.truncated)
        seen.append((result.observation.text, result.reward))
        if result.terminated or result.truncated:
            break
    return seen


@pytest.mark.parametrize("name", NAMES)
def test_a_thousand_at_once_play_as_they_do_alone(name: str) -> None:
    alone = [transcript(registry.make(name), seed, name) for seed in range(1000)]
    together = [registry.make(name) for _ in range(1000)]
    first = [env.reset(seed).text for seed, env in enumerate(together)]
    assert first == [episode[0][0] for episode in alone]
    second = [env.step(actions(name, seed)[0]).observation.text for seed, env in enumerate(together)]
    assert second == [episode[1][0] for episode in alone]


@pytest.mark.parametrize("name", NAMES)
def test_an_episode_goes_on_after_pickling(name: str) -> None:
    env = registry.make(name)
    env.reset(3)
    env.step(actions(name, 3)[0])
    copy = pickle.loads(pickle.dumps(env))
    assert copy.step(actions(name, 3)[1]) == env.step(actions(name, 3)[1])


@pytest.mark.parametrize("name", NAMES)
def test_a_step_before_reset_or_after_the_end_raises(name: str) -> None:
    env = registry.make(name)
    with pytest.raises(EpisodeOver):
        env.step("x")
    env.reset(0)
    for _ in range(env.spec.horizon):
        result = env.step("nonsense")
        if result.terminated or result.truncated:
            break
    with pytest.raises(EpisodeOver):
        env.step("x")


@pytest.mark.parametrize("name", NAMES)
def test_the_grammar_accepts_every_answer_of_the_expert(name: str) -> None:
    env, rng = registry.make(name), random.Random(0)
    for seed in range(20):
        env.reset(seed)
        while True:
            action = env.expert_action(rng, 0.3)
            assert re.fullmatch(env.spec.action_regex, action)
            result = env.step(action)
            if result.terminated or result.truncated:
                break


def success(env: Env, noise: float, episodes: int) -> float:
    rng, won = random.Random(0), 0
    for seed in range(episodes):
        env.reset(seed)
        while True:
            result = env.step(env.expert_action(rng, noise))
            if result.terminated or result.truncated:
                won += result.success
                break
    return won / episodes


def test_the_experts_reach_the_known_best() -> None:
    assert success(TicTacToe(), 0.0, 400) >= 0.93
    assert success(KeyDoor(), 0.0, 200) == 1.0
    assert success(TicTacToe(), 1.0, 400) < 0.55


def test_three_illegal_answers_forfeit_the_game() -> None:
    env = TicTacToe()
    env.reset(0)
    results = [env.step("no tag"), env.step("<move>77</move>"), env.step("<move>x</move>")]
    assert [r.reward for r in results] == [0.0, 0.0, -1.0]
    assert [r.terminated for r in results] == [False, False, True]
    assert results[2].info["outcome"] == "loss"
    assert "Illegal" in results[0].observation.text


def test_without_a_limit_illegal_answers_end_only_at_the_turn_cap() -> None:
    env = TicTacToe(max_illegal=None, turn_cap=5)
    env.reset(0)
    results = [env.step("?") for _ in range(5)]
    assert [r.truncated for r in results] == [False] * 4 + [True]


def test_the_opponent_opens_when_the_agent_is_o() -> None:
    boards = [TicTacToe().reset(seed).text for seed in range(50)]
    for board in boards:
        opponent_has_moved = "X" in board.split("\n", 1)[1]
        assert opponent_has_moved == board.startswith("You play O")
    assert 10 < sum(board.startswith("You play X") for board in boards) < 40


def test_a_perfect_opponent_is_never_beaten() -> None:
    assert success(TicTacToe(opponent="minimax"), 0.0, 20) == 0.0


def walk(env: KeyDoor, goal: tuple[int, int]) -> list[float]:
    rewards = []
    while env._agent != goal:
        down, right = goal[0] - env._agent[0], goal[1] - env._agent[1]
        word = ("down" if down > 0 else "up") if down else ("right" if right > 0 else "left")
        rewards.append(env.step(f"<action>{word}</action>").reward)
    return rewards


def test_key_then_door_gives_one_and_a_tenth() -> None:
    env = KeyDoor()
    env.reset(1)
    door_without_key = KeyDoor()
    door_without_key.reset(1)
    walk(door_without_key, door_without_key._door)
    assert door_without_key.step("<action>interact</action>").reward == 0
    walk(env, env._key)
    assert env.step("<action> Interact ").reward == 0.1  # trimmed, lower-cased, unclosed
    walk(env, env._door)
    last = env.step("<action>interact</action>")
    assert (last.reward, last.terminated, last.success) == (1.0, True, True)


def test_time_out_costs_half_a_point_and_bumps_cost_steps() -> None:
    env = KeyDoor(max_steps=35)
    env.reset(0)
    results = [env.step("<action>up</action>") for _ in range(35)]
    assert [r.reward for r in results] == [0.0] * 34 + [-0.5]
    assert (results[-1].truncated, results[-1].terminated) == (True, False)


def test_no_held_out_layout_is_ever_trained_on() -> None:
    train, heldout = KeyDoor(split="train"), KeyDoor(split="heldout")
    trained, held = set(), set()
    for seed in range(3000):
        train.reset(seed)
        trained.add(train.layout)
        heldout.reset(seed)
        held.add(heldout.layout)
    assert not trained & held
    assert len(held) > 250


def test_the_seeds_of_the_splits_never_meet() -> None:
    from envs.games.tictactoe import _seed_in_split

    train = {_seed_in_split(seed, "train") for seed in range(5000)}
    heldout = {_seed_in_split(seed, "heldout") for seed in range(1_000_000, 1_005_000)}
    assert not train & heldout
