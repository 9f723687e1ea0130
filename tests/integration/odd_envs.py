"""Environments for the tests: one whose returns always vary, and some that misbehave on purpose."""

from __future__ import annotations

import random
import time

from envs.base import Env, EnvSpec, Observation, StepResult
from envs.games.tictactoe import TicTacToe


class Hanging(TicTacToe):
    """Never returns from its second step."""

    def step(self, action: str) -> StepResult:
        if self._turns >= 1:
            time.sleep(3600)
        return super().step(action)


class Raising(TicTacToe):
    def reset(self, seed: int) -> Observation:
        raise ValueError(f"broken level {random.Random(seed).randrange(3)}")


class Checksum(Env):
    """Three turns; the reward is a checksum of the answer's bytes: any policy gets returns that vary in a group."""

    def __init__(self, split: str = "all") -> None:
        self.spec = EnvSpec("checksum", "checksum of the answer", "", ".*", 3, 3.0, 1.0)

    def reset(self, seed: int) -> Observation:
        self._turns = 0
        return Observation(f"You play {seed % 10}.")

    def step(self, action: str) -> StepResult:
        self._turns += 1
        reward = sum(action.encode()) % 97 / 97
        info = {"parse_ok": True, "illegal": False}
        return StepResult(Observation(f"You play {self._turns}."), reward, self._turns == 3, False, reward > 0.5, info)

    def expert_action(self, rng: random.Random, noise: float = 0.0, illegal_noise: float = 0.0) -> str:
        return "<move>1</move>"
