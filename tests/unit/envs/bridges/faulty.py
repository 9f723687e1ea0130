"""Environments that hang, crash and start processes, for tests that play them in a process of their own, where nothing
but envs is loaded."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import numpy as np

from envs.base import Observation, StepResult
from envs.games.tictactoe import TicTacToe


class Hanging(TicTacToe):
    """Its third step never returns, in the episodes of odd seeds."""

    def reset(self, seed: int) -> Observation:
        self._hangs, self._steps = seed % 2 == 1, 0
        return super().reset(seed)

    def step(self, action: str) -> StepResult:
        self._steps += 1
        while self._hangs and self._steps == 3:
            time.sleep(3600)
        return super().step(action)


class Exiting(TicTacToe):
    """Ends its process in the first step, in the episodes of odd seeds."""

    def reset(self, seed: int) -> Observation:
        self._exits = seed % 2 == 1
        return super().reset(seed)

    def step(self, action: str) -> StepResult:
        if self._exits:
            os._exit(3)
        return super().step(action)


class Leaving(TicTacToe):
    """Ends its process in `reset`."""

    def reset(self, seed: int) -> Observation:
        os._exit(4)


class Holding(TicTacToe):
    """Starts a process, whose number is the first observation; a step computes in C for ever and holds the
    interpreter, so that no thread of Python runs beside it."""

    def reset(self, seed: int) -> Observation:
        self._simulator = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
        super().reset(seed)
        return Observation(str(self._simulator.pid))

    def step(self, action: str) -> StepResult:
        sum(range(10**15))
        return super().step(action)


class Odd(TicTacToe):
    """What it returns is hard to carry."""

    def reset(self, seed: int) -> Observation:
        super().reset(seed)
        image = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
        tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
        return Observation("lone \ud800", image, "note", (tool,), (("user", "before"),))

    def step(self, action: str) -> StepResult:
        if action == "fail":
            raise KeyError("level")
        return StepResult(
            Observation("?"), np.float32(0.5), np.bool_(False), False, False, {"parse_ok": True, "kind": {3}, 1: (2,)}
        )

    def render(self) -> np.ndarray:
        return np.full((4, 5, 3), 7, np.uint8)[::2]  # not contiguous
