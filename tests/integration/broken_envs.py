"""Environments that misbehave on purpose."""

from __future__ import annotations

import random
import time

from envs.base import Observation, StepResult
from envs.tictactoe import TicTacToe


class Hanging(TicTacToe):
    """Never returns from its second step."""

    def step(self, action: str) -> StepResult:
        if self._turns >= 1:
            time.sleep(3600)
        return super().step(action)


class Raising(TicTacToe):
    def reset(self, seed: int) -> Observation:
        raise ValueError(f"broken level {random.Random(seed).randrange(3)}")
