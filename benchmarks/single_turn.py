"""A one-turn environment for benchmarks: the answer is as long as the policy may write, its reward counts spaces."""

from __future__ import annotations

import random

from envs.base import Env, EnvSpec, Observation, StepResult


def text_reward(text: str) -> float:
    """Share of digits: cheap, and spread over siblings."""
    return sum(character.isdigit() for character in text) / max(1, len(text))


def question(seed: int) -> str:
    cells = random.Random(seed).sample("123456789XO.", 9)
    return "You play X.\n" + "\n".join(" ".join(cells[row : row + 3]) for row in (0, 3, 6))


class SingleTurn(Env):
    def __init__(self) -> None:
        self.spec = EnvSpec("single_turn", "one answer", "", r".*", 1, 1.0, 1.0)

    def reset(self, seed: int) -> Observation:
        return Observation(question(seed))

    def step(self, action: str) -> StepResult:
        reward = text_reward(action)
        return StepResult(Observation("Over."), reward, True, False, False, {"parse_ok": True, "illegal": False})

    def expert_action(self, rng: random.Random, noise: float = 0.0, illegal_noise: float = 0.0) -> str:
        return "123456789"
