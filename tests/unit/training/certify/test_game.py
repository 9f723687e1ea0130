"""Random answers have returns that vary; losing pays what the game says."""

from __future__ import annotations

import random

from envs.base import Env
from training.certify.game import LOST, Chance


def played(env: Env, seed: int, rng: random.Random) -> float:
    env.reset(seed)
    total, over = 0.0, False
    while not over:
        result = env.step(str(rng.random()))
        total, over = total + result.reward, result.terminated
    return total


def test_returns_of_random_answers_vary_within_a_seed() -> None:
    rng = random.Random(0)
    returns = [played(Chance(), 5, rng) for _ in range(64)]
    assert set(returns) == {LOST, 1.0, 2.0, 3.0}


def test_the_same_seed_and_answers_are_the_same_episode() -> None:
    assert played(Chance(), 5, random.Random(1)) == played(Chance(), 5, random.Random(1))
    assert Chance().reset(5) == Chance().reset(5) != Chance().reset(6)
    assert Chance("heldout").reset(5) == Chance("heldout").reset(5)


def test_the_expert_answers_as_the_game_asks() -> None:
    assert Chance().expert_action(random.Random(0)).startswith("<move>")
