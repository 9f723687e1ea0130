"""TicTacToe against a scripted opponent. Fully observed (an MDP): no history needed."""

from __future__ import annotations

import hashlib
import random
from functools import cache

import numpy as np

from envs.base import (
    Env,
    EnvSpec,
    EpisodeOver,
    Observation,
    OpponentNotToMove,
    OpponentToMove,
    SettingError,
    Split,
    StepResult,
    check_choice,
    is_heldout,
)
from envs.parsing import tagged_int

LINES = ((0, 1, 2), (3, 4, 5), (6, 7, 8), (0, 3, 6), (1, 4, 7), (2, 5, 8), (0, 4, 8), (2, 4, 6))


EMPTY = " "
REFUSED = "Illegal move. "


def winner(board: str) -> str | None:
    """'X', 'O' or None for a board of nine characters."""
    for a, b, c in LINES:
        if board[a] != EMPTY and board[a] == board[b] == board[c]:
            return board[a]
    return None


def free_cells(board: str) -> list[int]:
    return [cell for cell in range(9) if board[cell] == EMPTY]


def play(board: str, cell: int, mark: str) -> str:
    return board[:cell] + mark + board[cell + 1 :]


@cache
def minimax(board: str, mark: str) -> int:
    """Value of the board for `mark`, whose turn it is, when both sides play perfectly: 1 win, 0 draw, -1 loss."""
    if winner(board):
        return -1
    free = free_cells(board)
    if not free:
        return 0
    other = "O" if mark == "X" else "X"
    return max(-minimax(play(board, cell, mark), other) for cell in free)


@cache
def against_random(board: str, mark: str) -> float:
    """Expected reward for `mark`, whose turn it is, with best play against a uniformly random opponent."""
    return max(_after(play(board, cell, mark), mark) for cell in free_cells(board))


def _after(board: str, mark: str) -> float:
    if winner(board):
        return 1.0
    free = free_cells(board)
    if not free:
        return 0.0
    other = "O" if mark == "X" else "X"
    total = 0.0
    for cell in free:
        reply = play(board, cell, other)
        if winner(reply):
            total -= 1.0
        elif free_cells(reply):
            total += against_random(reply, mark)
    return total / len(free)


class TicTacToe(Env):
    """Settings: `opponent` random | minimax | mixed (`minimax_share` of its moves perfect) | policy (self-play: its
    moves are asked of a policy, see `Env.opponent_observation`), `max_illegal` answers that forfeit the game (None:
    only the turn cap ends it), `turn_cap`, `split` by the seed.

    In self-play the opening move of an opponent that begins is drawn at random, so that siblings of a group, which
    share a seed, begin alike. The same rules hold for both: who forfeits the game by illegal answers has lost it.
    """

    def __init__(
        self,
        opponent: str = "random",
        minimax_share: float = 0.5,
        max_illegal: int | None = 3,
        turn_cap: int = 20,
        split: Split = "all",
    ) -> None:
        check_choice("opponent", opponent, ("random", "minimax", "mixed", "policy"))
        check_choice("split", split, ("all", "train", "heldout"))
        if not 0 <= minimax_share <= 1:
            raise SettingError(f"minimax_share must lie in 0..1, got {minimax_share}")
        if max_illegal is not None and max_illegal < 1:
            raise SettingError(f"max_illegal must be at least 1, or null for no limit; got {max_illegal}")
        self._opponent = opponent
        self._minimax_share = minimax_share if opponent == "mixed" else float(opponent == "minimax")
        self._max_illegal = max_illegal
        self._turn_cap = turn_cap
        self._split = split
        self._over = True
        self.spec = EnvSpec(
            name="tictactoe",
            one_line="TicTacToe against a scripted opponent, or against a policy",
            system_prompt=(
                "You play TicTacToe. Free cells show their number. "
                "Answer with the number of a free cell: <move>N</move>"
            ),
            action_regex=r"<move>[1-9]</move>",
            horizon=turn_cap,
            best_return=0.99 if opponent == "random" else 1.0,
            best_success={"random": 0.95, "policy": 1.0}.get(opponent, 0.0),
            failure_return=-1.0,
            policy_opponent=opponent == "policy",
        )

    def reset(self, seed: int) -> Observation:
        self._rng = random.Random(_seed_in_split(seed, self._split))
        self._mark = self._rng.choice("XO")
        self._other = "O" if self._mark == "X" else "X"
        self._board = EMPTY * 9
        self._illegal = self._opponent_illegal = self._turns = 0
        self._over = False
        self._asks_opponent: str | None = None  # how its observation begins; None: it is not to move
        if self._other == "X":
            self._opponent_moves()
        return self._observe(self._mark)

    def step(self, action: str) -> StepResult:
        if self._over:
            raise EpisodeOver("the game is over: call reset")
        if self._asks_opponent is not None:
            raise OpponentToMove(
                "with opponent 'policy' the other player is to move: give its answer to opponent_step. Rollouts do; "
                "elsewhere set opponent to random, minimax or mixed"
            )
        self._turns += 1
        cell = tagged_int(action, "move")
        if cell is None or not 1 <= cell <= 9 or self._board[cell - 1] != EMPTY:
            return self._refuse(parsed=cell is not None)
        self._board = play(self._board, cell - 1, self._mark)
        if not winner(self._board) and free_cells(self._board):
            if self._opponent == "policy":
                self._asks_opponent = ""
                return self._go_on(self._observe(self._mark), parse_ok=True, illegal=False, capped=False)
            self._opponent_moves()
        return self._after_both()

    def opponent_observation(self) -> Observation | None:
        return None if self._asks_opponent is None else self._observe(self._other, self._asks_opponent)

    def opponent_step(self, action: str) -> StepResult:
        if self._asks_opponent is None:
            raise OpponentNotToMove("the other player is not to move")
        cell = tagged_int(action, "move")
        if cell is None or not 1 <= cell <= 9 or self._board[cell - 1] != EMPTY:
            return self._refuse_opponent(parsed=cell is not None)
        self._asks_opponent = None
        self._board = play(self._board, cell - 1, self._other)
        return self._after_both()

    def _refuse_opponent(self, parsed: bool) -> StepResult:
        self._opponent_illegal += 1
        if self._opponent_illegal >= (self._max_illegal or self._turn_cap):
            self._asks_opponent = None
            return self._end(1.0, "win", parse_ok=parsed, illegal=True)
        self._asks_opponent = REFUSED
        return self._go_on(self._observe(self._mark), parsed, illegal=True, capped=False)

    def _after_both(self) -> StepResult:
        won = winner(self._board)
        if won or not free_cells(self._board):
            outcome = "draw" if won is None else "win" if won == self._mark else "loss"
            return self._end({"win": 1.0, "draw": 0.0, "loss": -1.0}[outcome], outcome)
        return self._go_on(
            self._observe(self._mark), parse_ok=True, illegal=False, capped=self._turns >= self._turn_cap
        )

    def _refuse(self, parsed: bool) -> StepResult:
        self._illegal += 1
        if self._max_illegal is not None and self._illegal >= self._max_illegal:
            return self._end(-1.0, "loss", parse_ok=parsed, illegal=True)
        capped = self._turns >= self._turn_cap
        return self._go_on(self._observe(self._mark, REFUSED), parsed, illegal=True, capped=capped)

    def _go_on(self, observation: Observation, parse_ok: bool, illegal: bool, capped: bool) -> StepResult:
        self._over = capped
        info: dict[str, bool | str] = {"parse_ok": parse_ok, "illegal": illegal, "illegal_move": illegal}
        if capped:
            info["outcome"] = "loss"
        return StepResult(observation, 0.0, False, capped, False, info)

    def _end(self, reward: float, outcome: str, parse_ok: bool = True, illegal: bool = False) -> StepResult:
        self._over = True
        info = {"parse_ok": parse_ok, "illegal": illegal, "illegal_move": illegal, "outcome": outcome}
        return StepResult(self._observe(self._mark), reward, True, False, outcome == "win", info)

    def _opponent_moves(self) -> None:
        free = free_cells(self._board)
        # Both numbers are always drawn, so that the random stream depends only on the number of moves.
        perfect, cell = self._rng.random() < self._minimax_share, self._rng.choice(free)
        if perfect:
            values = {c: -minimax(play(self._board, c, self._other), self._mark) for c in free}
            best = max(values.values())
            cell = next(c for c in free if values[c] == best)
        self._board = play(self._board, cell, self._other)

    def _observe(self, player: str, prefix: str = "") -> Observation:
        cells = [mark if mark != EMPTY else str(i + 1) for i, mark in enumerate(self._board)]
        rows = "\n".join(" ".join(cells[row : row + 3]) for row in (0, 3, 6))
        return Observation(f"{prefix}You play {player}.\n{rows}")

    def render(self, cell_pixels: int = 64) -> np.ndarray:
        """The board: crosses blue, noughts red; (3 * cell_pixels) square, uint8."""
        from PIL import Image, ImageDraw

        side, edge, width = 3 * cell_pixels, cell_pixels // 5, max(cell_pixels // 12, 1)
        image = Image.new("RGB", (side, side), (255, 255, 255))
        draw = ImageDraw.Draw(image)
        for line in (cell_pixels, 2 * cell_pixels):
            draw.line((line, 0, line, side), (120, 120, 120), 2)
            draw.line((0, line, side, line), (120, 120, 120), 2)
        for cell, mark in enumerate(self._board):
            row, column = divmod(cell, 3)
            left, top = column * cell_pixels + edge, row * cell_pixels + edge
            right, bottom = (column + 1) * cell_pixels - edge, (row + 1) * cell_pixels - edge
            if mark == "X":
                draw.line((left, top, right, bottom), (40, 80, 220), width)
                draw.line((left, bottom, right, top), (40, 80, 220), width)
            elif mark == "O":
                draw.ellipse((left, top, right, bottom), outline=(200, 50, 40), width=width)
        return np.asarray(image)

    def expert_action(self, rng: random.Random, noise: float = 0.0, illegal_noise: float = 0.0) -> str:
        """Best reply to a random opponent; with `noise` a random free cell, with `illegal_noise` any cell."""
        draw = rng.random()
        free = free_cells(self._board)
        if draw < illegal_noise:
            cell = rng.randrange(9)
        elif draw < illegal_noise + noise:
            cell = rng.choice(free)
        elif self._opponent in ("random", "policy"):
            cell = max(free, key=lambda c: _after(play(self._board, c, self._mark), self._mark))
        else:
            cell = max(free, key=lambda c: -minimax(play(self._board, c, self._mark), self._other))
        return f"<move>{cell + 1}</move>"


def _seed_in_split(seed: int, split: Split) -> int:
    """The seed itself for `all`; for a split, the first seed that belongs to it on a fixed chain from `seed`."""
    if split == "all":
        return seed
    candidate = seed
    while is_heldout(f"tictactoe/{candidate}") != (split == "heldout"):
        digest = hashlib.blake2b(f"{seed}/{candidate}".encode(), digest_size=6).digest()
        candidate = int.from_bytes(digest, "little")
    return candidate
