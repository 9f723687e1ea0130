"""KeyDoor seen from above: the whole grid as a picture, for vision-language policies."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np

from envs.base import Observation, SettingError, Split
from envs.games.key_door import ACTIONS, KeyDoor, answer


class KeyDoorPixels(KeyDoor):
    """Settings: those of KeyDoor, and `cell_pixels`, the side of a cell in the picture. The rules are KeyDoor's; the
    picture tells everything, so that no memory is needed: a carried key is not on the grid any more."""

    def __init__(self, size: int = 4, max_steps: int = 35, split: Split = "all", cell_pixels: int = 14) -> None:
        super().__init__(size, max_steps, split)
        if cell_pixels < 4:
            raise SettingError(f"cell_pixels must be at least 4, for an agent smaller than its cell; got {cell_pixels}")
        self._cell_pixels = cell_pixels
        self.spec = replace(
            self.spec,
            name="key_door_pixels",
            one_line="find the key and open the door, seen as a picture",
            system_prompt=(
                "The picture shows a grid: you are blue, the key is yellow, the door is brown. Take the key, then open "
                "the door. Answer <action>A</action> with up, down, left, right or interact."
            ),
            supports_scratchpad=False,
            image=True,
        )

    def _observe(self) -> Observation:
        return Observation("What now?", image=self.render(self._cell_pixels))

    def render(self, cell_pixels: int | None = None) -> np.ndarray:
        return super().render(cell_pixels or self._cell_pixels)

    def expert_action(self, rng: random.Random, noise: float = 0.0, illegal_noise: float = 0.0) -> str:
        """A shortest way to the key and then to the door; `noise` draws from all five actions."""
        if rng.random() < noise + illegal_noise:
            return answer(rng.choice(ACTIONS))
        goal = self._door if self._carrying else self._key
        return answer("interact" if self._agent == goal else self._way({goal}))
