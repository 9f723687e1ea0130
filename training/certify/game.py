"""The game of the short runs: whatever a policy says has a return, so that even random weights can learn."""

from __future__ import annotations

import hashlib
import random

import numpy as np

from envs.base import Env, EnvSpec, Observation, StepResult

TURNS = 3
LOST = -1.0
SIDE, CELL = 4, 14  # cells of a picture along each side, pixels of a cell


class Chance(Env):
    """Three turns; an answer earns 0 or 1 by a hash of its text, the seed and the turn. A total of 0 is a loss.
    `pictures`: an observation also shows its numbers as bright cells."""

    def __init__(self, split: str = "all", pictures: bool = False) -> None:
        self.spec = EnvSpec(
            name="chance",
            one_line="what an answer earns is a hash of it",
            system_prompt="You play O.\nFree cells show their number. Answer <move>N</move>. " * 2,
            action_regex=".*",
            horizon=TURNS,
            best_return=float(TURNS),
            best_success=1.0,
            failure_return=LOST,
        )
        self._split, self._pictures = split, pictures

    def reset(self, seed: int) -> Observation:
        self._seed, self._turn, self._earned = f"{self._split}/{seed}", 0, 0.0
        return self._shown()

    def step(self, action: str) -> StepResult:
        digest = hashlib.blake2b(f"{self._seed}/{self._turn}/{action}".encode(), digest_size=1).digest()
        self._turn += 1
        over = self._turn == TURNS
        reward = float(digest[0] % 2)
        self._earned += reward
        if over and not self._earned:
            reward = LOST
        info = {"parse_ok": True, "illegal": False}
        return StepResult(self._shown(), reward, over, False, self._earned > 1, info)

    def expert_action(self, rng: random.Random, noise: float = 0.0, illegal_noise: float = 0.0) -> str:
        return f"<move>{rng.randrange(1, 10)}</move>"

    def _shown(self) -> Observation:
        cells = random.Random(f"{self._seed}/{self._turn}").sample(range(1, 10), 6)
        picture = _picture(cells) if self._pictures else None
        return Observation("You play X.\n" + " ".join(map(str, cells)), image=picture)


def _picture(bright: list[int]) -> np.ndarray:
    cells = np.zeros((SIDE, SIDE, 3), np.uint8)
    cells.reshape(-1, 3)[bright] = 255
    return cells.repeat(CELL, axis=0).repeat(CELL, axis=1)
