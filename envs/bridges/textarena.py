"""Games of the library textarena as ours: `textarena:TicTacToe-v0`, for one player or for two with a scripted opponent.

The policy sees what textarena shows its player, and its whole answer goes to the game: moves stand in brackets, [4].
The library draws from Python's global generator, of which each game has its own here (envs.randomness). Imported when a
game is made; tried with textarena 0.7.4.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Sequence, Set
from typing import Any

from envs.base import Env, EnvSpec, EnvUsageError, EpisodeOver, Observation, SettingError, StepResult
from envs.randomness import OwnRandom
from envs.registry import UnknownEnvironment

LISTED = re.compile(r"(?:available|valid|legal|possible) (?:moves|actions)[^:\n]*:(.*)", re.IGNORECASE)
IN_BRACKETS = re.compile(r"\[[^\[\]\n]+\]")
SEEDS = 2**31
MOST_REFUSED = 1000  # moves of the opponent in one turn; textarena itself ends a game with the second


class TextArenaEnv(Env):
    """One game of textarena.

    Settings: `players` 1 or 2; `seat` of the policy among two (None: the seed decides); `moves`, texts of which the
    opponent and the expert draw one at random (None: the moves that the game lists as available); `success_reward`,
    from which on an episode is a success; `max_steps` of the policy, after which it is truncated. Every other setting
    goes to `textarena.make`.

    A malformed or forbidden move is answered by the game, which allows one and ends with the next.
    """

    def __init__(
        self,
        name: str,
        /,
        players: int = 1,
        seat: int | None = None,
        moves: Sequence[str] | None = None,
        success_reward: float = 1.0,
        max_steps: int = 100,
        **make: Any,
    ) -> None:
        """Raises EnvUsageError without textarena, UnknownEnvironment, SettingError."""
        if players not in (1, 2):
            raise SettingError(f"players must be 1 or 2 (more have no scripted opponents here), got {players}")
        if seat is not None and not 0 <= seat < players:
            raise SettingError(f"seat must lie in 0..{players - 1}, got {seat}")
        if moves is not None and (isinstance(moves, str) or not moves):
            raise SettingError(f"moves must be a list of texts, got {moves!r}")
        self._name, self._players, self._fixed_seat, self._moves = name, players, seat, moves
        self._success_reward, self._make = success_reward, make
        self._over = True
        self._own = OwnRandom(0)
        with self._own.lent():
            self._started(0)  # what the library says to its name and settings is said now
        self.spec = EnvSpec(
            name=f"textarena:{name}",
            one_line=f"textarena's {name}" + (" against a random opponent" if players == 2 else ""),
            system_prompt="You play a game. Put your move in square brackets, as the game asks.",
            action_regex=r"(?s).*\[[^\[\]]+\].*",
            horizon=max_steps,
            best_return=1.0,
            best_success=math.nan if players == 2 else 1.0,
            failure_return=-1.0 if players == 2 else None,
        )

    def reset(self, seed: int) -> Observation:
        self._rng = random.Random(f"textarena/{seed}")  # of the opponent
        draw = self._rng.randrange(self._players)
        self._seat = draw if self._fixed_seat is None else self._fixed_seat
        self._own = OwnRandom(self._rng.getrandbits(32))
        with self._own.lent():
            self._game = self._started(seed % SEEDS)
            over = self._until_my_turn()
        if over:
            raise RuntimeError(f"{self.spec.name} was over before the first move")
        self._steps, self._over = 0, False
        return self._seen

    def step(self, action: str) -> StepResult:
        if self._over:
            raise EpisodeOver("the episode is over: call reset")
        self._steps += 1
        with self._own.lent():
            done, _ = self._game.step(action)
            # The count of the player whose turn it is: a good move sets it back, or hands over to the opponent.
            illegal = (
                getattr(self._game.state, "error_count", 0) > 0 and self._game.state.current_player_id == self._seat
            )
            done = done or self._until_my_turn()
            return self._result(bool(done), illegal)

    def _result(self, done: bool, illegal: bool) -> StepResult:
        info: dict[str, Any] = {"parse_ok": not illegal, "illegal": illegal}
        truncated = not done and self._steps >= self.spec.horizon
        self._over = done or truncated
        if not done:
            return StepResult(self._seen, 0.0, False, truncated, False, info)
        rewards, about = self._game.close()
        mine = (about or {}).get(self._seat, {})
        reward = float((rewards or {}).get(self._seat, 0.0))
        if mine.get("invalid_move"):
            info |= {"parse_ok": False, "illegal": True}
        if self._players == 2:
            info["outcome"] = "win" if reward > 0 else "loss" if reward < 0 else "draw"
        told = str(mine.get("reason") or "The game is over.")
        return StepResult(Observation(told), reward, True, False, reward >= self._success_reward, info)

    def _until_my_turn(self) -> bool:
        """Plays the opponent's turns. Returns whether the game is over. A draw that the game refuses is drawn again
        from the others: the policy wins no game by the opponent's bad luck."""
        refused: set[str] = set()
        while True:
            player, shown = self._game.get_observation()
            text = shown if isinstance(shown, str) else "\n".join(str(message[1]) for message in shown)
            if player == self._seat:
                self._seen = Observation(text.strip())
                return False
            move, state = self._drawn(text, self._rng, refused), self._game.state
            allowance, state.error_allowance = state.error_allowance, MOST_REFUSED
            done, _ = self._game.step(move)
            state.error_allowance = allowance
            if done:
                return True
            again = getattr(state, "error_count", 0) > 0 and state.current_player_id == player
            refused = refused | {move} if again else set()

    def _drawn(self, text: str, rng: random.Random, refused: Set[str] = frozenset()) -> str:
        """A move at random, of the setting `moves` or of those that the game lists, less the refused ones. Raises
        EnvUsageError where none is left."""
        moves = [move for move in self._listed(text) if move not in refused]
        if moves:
            return rng.choice(moves)
        if refused:
            raise EnvUsageError(
                f"textarena:{self._name} refused every move that its opponent can draw ({', '.join(sorted(refused))}): "
                "name all moves of the game in the setting moves"
            )
        raise EnvUsageError(
            f"textarena:{self._name} does not list its moves, so none can be drawn: name them, as in moves: "
            "['[a]', '[b]']"
        )

    def _listed(self, text: str) -> Sequence[str]:
        if self._moves is not None:
            return self._moves
        listed = [IN_BRACKETS.findall(line) for line in LISTED.findall(text)]
        return listed[-1] if listed else []

    def expert_action(self, rng: random.Random, noise: float = 0.0, illegal_noise: float = 0.0) -> str:
        """A move at random: the games come without an expert. Good for formatting, no teacher."""
        if rng.random() < illegal_noise:
            return "[no such move]"
        return self._drawn(self._seen.text, rng)

    def _started(self, seed: int) -> Any:
        """A fresh game, because what its player has seen outlives its own reset."""
        textarena = _library(self._name)
        try:
            game = textarena.make(self._name, **self._make)
        except ValueError as error:
            raise UnknownEnvironment(f"textarena:{self._name} cannot be made: {error}") from error
        except (ImportError, TypeError) as error:
            raise EnvUsageError(f"textarena:{self._name} cannot be made with {self._make}: {error}") from error
        try:
            game.reset(num_players=self._players, seed=seed)
        except AssertionError as error:
            other = 3 - self._players
            raise SettingError(
                f"textarena:{self._name} is not for players: {self._players} ({error}); try players: {other}"
            ) from error
        return game


def _library(name: str) -> Any:
    try:
        import textarena
    except ModuleNotFoundError as error:
        raise EnvUsageError(
            f"textarena:{name} needs the library textarena ({error}). Give it an environment of its own: set "
            "env.packages: [textarena], or env.python to an interpreter that has it"
        ) from error
    return textarena
