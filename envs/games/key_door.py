"""KeyDoor: find the key, then the door, seeing only the own cell (a POMDP: the policy must remember or explore)."""

from __future__ import annotations

import random
from collections import deque

import numpy as np

from envs.base import Env, EnvSpec, EpisodeOver, Observation, SettingError, Split, StepResult, check_choice, in_split
from envs.parsing import tag_content

Cell = tuple[int, int]


MOVES: dict[str, Cell] = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}


ACTIONS = (*MOVES, "interact")


class KeyDoor(Env):
    """Settings: `size` of the grid, `max_steps`, `split` by layout (cells of agent, key and door)."""

    def __init__(self, size: int = 4, max_steps: int = 35, split: Split = "all") -> None:
        check_choice("split", split, ("all", "train", "heldout"))
        if size < 2:
            raise SettingError(f"size must be at least 2 (three distinct cells are needed), got {size}")
        if max_steps < 1:
            raise SettingError(f"max_steps must be at least 1, got {max_steps}")
        self._size = size
        self._max_steps = max_steps
        self._split = split
        self._over = True
        self.spec = EnvSpec(
            name="key_door",
            one_line="find the key and open the door, seeing only the own cell",
            system_prompt=(
                "You walk on a grid and see only your own cell. Take the key, then open the door. "
                "Answer <action>A</action> with up, down, left, right or interact."
            ),
            action_regex=r"<action>(up|down|left|right|interact)</action>",
            horizon=max_steps,
            best_return=1.1,
            best_success=1.0,
            failure_return=-0.5,
            supports_scratchpad=True,
        )

    def reset(self, seed: int) -> Observation:
        rng = random.Random(seed)
        while True:
            layout = rng.sample(range(self._size**2), 3)
            if in_split(f"key_door/{self._size}/{layout}", self._split):
                break
        self.layout = tuple(layout)
        self._agent, self._key, self._door = (divmod(cell, self._size) for cell in layout)
        self._carrying = False
        self._turns = 0
        self._over = False
        self._seen: dict[Cell, str] = {}
        return self._observe()

    def step(self, action: str) -> StepResult:
        if self._over:
            raise EpisodeOver("the episode is over: call reset")
        self._turns += 1
        word = tag_content(action, "action")
        parsed = word in ACTIONS
        reward, opened = 0.0, False
        if parsed and word in MOVES:
            self._agent = self._neighbour(word)
        elif parsed:
            reward, opened = self._interact()
        truncated = not opened and self._turns >= self._max_steps
        self._over = opened or truncated
        info = {"parse_ok": parsed, "illegal": not parsed}
        return StepResult(self._observe(), -0.5 if truncated else reward, opened, truncated, opened, info)

    def _interact(self) -> tuple[float, bool]:
        if self._agent == self._key and not self._carrying:
            self._carrying = True
            return 0.1, False
        if self._agent == self._door and self._carrying:
            return 1.0, True
        return 0.0, False

    def _neighbour(self, word: str) -> Cell:
        row, column = self._agent[0] + MOVES[word][0], self._agent[1] + MOVES[word][1]
        return (min(max(row, 0), self._size - 1), min(max(column, 0), self._size - 1))

    def _here(self) -> str:
        if self._agent == self._key and not self._carrying:
            return "key"
        return "locked door" if self._agent == self._door else "nothing"

    def _observe(self) -> Observation:
        here = self._here()
        self._seen[self._agent] = here
        moves = [f"{word} {_shown(self._neighbour(word))}" for word in MOVES if self._neighbour(word) != self._agent]
        text = (
            f"At {_shown(self._agent)} of {self._size}x{self._size}, {'key' if self._carrying else 'no key'}. "
            f"Here: {here}. Moves: {', '.join(moves)}"
        )
        return Observation(text, note=self._note())

    def _note(self) -> str:
        """The note of a perfect memory: the cells seen so far, and where key and door are once they were found."""
        places = [f"{what} {_shown(cell)}" for cell, what in self._seen.items() if what != "nothing"]
        visited = " ".join(_shown(cell) for cell in self._seen)
        return f"seen: {visited}; found: {', '.join(places) or 'nothing'}"

    def expert_action(self, rng: random.Random, noise: float = 0.0, illegal_noise: float = 0.0) -> str:
        """Visits cell after cell until it has seen what it looks for; it knows no more than the policy does. `noise`
        draws from all five actions. On a grid of even size it walks a loop, which a small policy can imitate without
        a memory."""
        if rng.random() < noise + illegal_noise:
            return answer(rng.choice(ACTIONS))
        here = self._here()
        if here == "key" or (here == "locked door" and self._carrying):
            return answer("interact")
        goals = {cell for cell, what in self._seen.items() if what == "locked door"} if self._carrying else set()
        return answer(self._way(goals) if goals or self._size % 2 else self._along_the_loop())

    def _along_the_loop(self) -> str:
        """The next move of a closed walk through all cells of an even grid: right in even rows, left in odd rows, and
        back up the first column, which the walk through the rows leaves out."""
        row, column = self._agent
        last = self._size - 1
        if column == 0:
            return "up" if row else "right"
        if row % 2:
            return "left" if column > 1 or row == last else "down"
        return "right" if column < last else "down"

    def _way(self, goals: set[Cell]) -> str:
        """The first move of a shortest path to a goal; without goals, to the nearest cell that was not seen yet."""
        start = self._agent
        queue: deque[tuple[Cell, str]] = deque([(start, "")])
        reached = {start}
        while queue:
            cell, first = queue.popleft()
            if first and (cell in goals if goals else cell not in self._seen):
                return first
            for word, (down, right) in MOVES.items():
                near = (cell[0] + down, cell[1] + right)
                if near not in reached and all(0 <= part < self._size for part in near):
                    reached.add(near)
                    queue.append((near, first or word))
        return "interact"

    def render(self, cell_pixels: int = 14) -> np.ndarray:
        """The fully observed grid: agent blue, key yellow, door brown; (size*cell_pixels) square, uint8."""
        grid = np.full((self._size, self._size, 3), 235, np.uint8)
        grid[self._door] = (130, 80, 40)
        if not self._carrying:
            grid[self._key] = (240, 200, 0)
        image = grid.repeat(cell_pixels, axis=0).repeat(cell_pixels, axis=1)
        edge = cell_pixels // 4
        top, left = self._agent[0] * cell_pixels, self._agent[1] * cell_pixels
        image[top + edge : top + cell_pixels - edge, left + edge : left + cell_pixels - edge] = (40, 80, 220)
        return image


def _shown(cell: Cell) -> str:
    return f"({cell[0]}, {cell[1]})"


def answer(word: str) -> str:
    return f"<action>{word}</action>"
