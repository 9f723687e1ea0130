"""Stands for textarena 0.7 in tests: the part of its interface that the adapter uses, and two games. Like the library,
it draws from Python's global generator and seeds that itself."""

from __future__ import annotations

import random
from typing import Any


class State:
    def __init__(self, num_players: int, players: int, seed: int | None) -> None:
        assert num_players == players, f"The number of players has to be {players}, received {num_players}"
        random.seed(seed)
        self.current_player_id, self.error_count, self.rewards = 0, 0, None
        self.error_allowance = 1
        self.game_info: dict[int, dict[str, Any]] = {player: {"invalid_move": False} for player in range(players)}

    def invalid(self, reason: str, rewards: dict[int, float]) -> bool:
        if self.error_count < self.error_allowance:
            self.error_count += 1
            return False
        self.rewards = rewards
        self.game_info[self.current_player_id] |= {"invalid_move": True, "reason": reason}
        return True


class Guess:
    """One player: a number from 0 to 9; the first observation tells whether it is even."""

    def reset(self, num_players: int, seed: int | None = None) -> None:
        self.state = State(num_players, 1, seed)
        self.number = random.randrange(10)
        self.told = [(-1, f"Find the number, which is {'odd' if self.number % 2 else 'even'}.", 0)]

    def get_observation(self) -> tuple[int, Any]:
        return 0, self.told

    def step(self, action: str) -> tuple[bool, dict[str, Any]]:
        said = action.strip("[]")
        if not said.isdigit():
            return self.state.invalid("not a number", {0: -1.0}), {}
        self.state.error_count = 0
        self.told = [(-1, "wrong", 3)]
        if int(said) == self.number:
            self.state.rewards = {0: 1.0}
            self.state.game_info[0]["reason"] = "found"
        return int(said) == self.number, {}

    def close(self) -> tuple[Any, Any]:
        return self.state.rewards, self.state.game_info


class Nim(Guess):
    """Two players take one or two of 7 to 9 matches by turns; whoever takes the last one wins."""

    def __init__(self, silent: bool = False) -> None:
        self.silent = silent

    def reset(self, num_players: int, seed: int | None = None) -> None:
        self.state = State(num_players, 2, seed)
        self.matches = random.randrange(7, 10)

    def get_observation(self) -> tuple[int, Any]:
        moves = ", ".join(f"'[{number}]'" for number in (1, 2) if number <= self.matches)
        listed = "" if self.silent else f"\nAvailable Moves: {moves}"
        return self.state.current_player_id, f"{self.matches} matches{listed}\n"

    def step(self, action: str) -> tuple[bool, dict[str, Any]]:
        player, said = self.state.current_player_id, action.strip("[]")
        if said not in ("1", "2") or int(said) > self.matches:
            return self.state.invalid("no such move", {player: -1.0, 1 - player: 1.0}), {}
        self.state.error_count = 0
        self.matches -= int(said)
        if self.matches > 2 and random.random() < 0.3:  # the wind takes one
            self.matches -= 1
        if self.matches == 0:
            self.state.rewards = {player: 1.0, 1 - player: -1.0}
            return True, {}
        self.state.current_player_id = 1 - player
        return False, {}


def make(env_id: str, **settings: Any) -> Guess:
    games: dict[str, type[Guess]] = {"Guess-v0": Guess, "Nim-v0": Nim}
    if env_id not in games:
        raise ValueError(f"Environment {env_id} not found in registry.")
    return games[env_id](**settings)
