"""Episodes of a policy that is served somewhere: the environment here, its actions from there. Pure.

What the policy does wrong is a lost episode. A server that cannot be reached, or that fails, is neither success nor
failure: such episodes are counted apart, and the success is that of the others.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar

from deployments.errors import PolicyError
from training.tracking.intervals import Estimate, proportion

SeenT = TypeVar("SeenT")
MoveT = TypeVar("MoveT")
MoveT_contra = TypeVar("MoveT_contra", contravariant=True)

GIVE_UP_AFTER = 3  # episodes in a row that end because of the server
# Failures of the server's side beside those that may be tried again. Any other kind is a mistake in what was asked.
SERVERS_FAULT = ("internal", "cancelled")


@dataclass(frozen=True, slots=True)
class Moved(Generic[SeenT]):
    """What a move led to. `over`: the episode has ended, by success, failure or its limit of steps."""

    observation: SeenT
    success: bool
    over: bool


class Game(Protocol[SeenT, MoveT_contra]):
    """One environment, played by moves of its own kind."""

    def reset(self, seed: int) -> SeenT: ...

    def step(self, move: MoveT_contra) -> Moved[SeenT]: ...


@dataclass(frozen=True, slots=True)
class Answer(Generic[MoveT]):
    """What the policy says to one observation: the moves to make before it is asked again, at least one. `parse_ok`:
    False where the server could not read its model's text, and `moves` are its fallback."""

    moves: Sequence[MoveT]
    parse_ok: bool = True

    def __post_init__(self) -> None:
        if not len(self.moves):
            raise ValueError("an answer has at least one move, or the episode would never end")


def _nothing() -> None:
    return


@dataclass(frozen=True, slots=True)
class Player(Generic[SeenT, MoveT]):
    """A policy, wherever it runs. `act` is asked what to do, `begin` is called before an episode's first question, so
    that the server forgets what was before. Both raise PolicyError once their client's retries are used up."""

    act: Callable[[SeenT], Answer[MoveT]]
    begin: Callable[[], None] = _nothing


@dataclass(frozen=True, slots=True)
class Outcome:
    """One episode. `server_lost`: it ended because no answer came, and `error` says why; `success` is False then and
    means nothing. `steps` are moves that were made, `unreadable` of the `answers` had no `parse_ok`."""

    seed: int
    ended: Literal["played", "server_lost"]
    success: bool
    steps: int
    answers: int
    unreadable: int
    error: str = ""


def play(
    game: Game[SeenT, MoveT], player: Player[SeenT, MoveT], seed: int, stopped: Callable[[], bool] = lambda: False
) -> Outcome:
    """One episode. `stopped` is asked before each question: whether nobody waits for the outcome any more.

    Raises PolicyError for a question that the server refuses (a wrong key, an unknown policy, a state of the wrong
    size): every episode would end so.
    """
    observation, success, over = game.reset(seed), False, False
    steps = answers = unreadable = 0
    while not over:
        if stopped():
            return Outcome(seed, "server_lost", False, steps, answers, unreadable, "stopped")
        try:
            if not answers:
                player.begin()
            answer = player.act(observation)
        except PolicyError as error:
            if not (error.retryable or error.kind in SERVERS_FAULT):
                raise
            return Outcome(seed, "server_lost", False, steps, answers, unreadable, str(error))
        answers += 1
        unreadable += not answer.parse_ok
        for move in answer.moves:
            moved = game.step(move)
            observation, success, over = moved.observation, moved.success, moved.over
            steps += 1
            if over:
                break
    return Outcome(seed, "played", success, steps, answers, unreadable)


Episode = AbstractContextManager[tuple[Game[SeenT, MoveT], Player[SeenT, MoveT]]]


def play_all(
    open_episode: Callable[[], Episode[SeenT, MoveT]],
    seeds: Sequence[int],
    parallel: int = 1,
    give_up_after: int = GIVE_UP_AFTER,
    told: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """An episode per seed, `parallel` of them at a time, each in a thread and with an environment and a session of its
    own (`open_episode`). In the order of the seeds.

    After `give_up_after` episodes in a row whose server was lost, no further one is begun: the rest counts as
    `server_lost`, too. `told` hears of each episode that was begun. Raises what `play` raises.
    """
    streak = _Streak(give_up_after)

    def one(seed: int) -> Outcome:
        if streak.broken:
            error = f"not begun: the server was lost in {give_up_after} episodes in a row"
            return Outcome(seed, "server_lost", False, 0, 0, 0, error)
        try:
            with open_episode() as (game, player):
                outcome = play(game, player, seed, lambda: streak.stopped)
        except BaseException:
            streak.stop()
            raise
        streak.add(outcome)
        told(outcome)
        return outcome

    with ThreadPoolExecutor(parallel, thread_name_prefix="episodes") as pool:
        try:
            return list(pool.map(one, seeds))
        except BaseException:  # Ctrl-C, too: the episodes that play end with their next answer
            streak.stop()
            raise


class _Streak:
    """Episodes in a row that lost their server, in the order in which they end. Thread-safe."""

    def __init__(self, most: int) -> None:
        self._most, self._lost, self._stopped = most, 0, False
        self._lock = threading.Lock()

    @property
    def stopped(self) -> bool:
        return self._stopped

    @property
    def broken(self) -> bool:
        return self._stopped or self._lost >= self._most

    def stop(self) -> None:
        self._stopped = True

    def add(self, outcome: Outcome) -> None:
        with self._lock:
            if not self.broken:
                self._lost = self._lost + 1 if outcome.ended == "server_lost" else 0


@dataclass(frozen=True)
class ClosedLoop:
    """An evaluation. `success`: the share of the episodes that were `played` to their end, None where none was.
    `unreadable`: the share of the answers that the server could not read. `steps`: mean over the episodes played."""

    success: Estimate | None
    played: int
    server_lost: int
    steps: float
    unreadable: float
    outcomes: tuple[Outcome, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def errors(self) -> list[str]:
        """Why servers were lost, each reason once."""
        return list(dict.fromkeys(outcome.error for outcome in self.outcomes if outcome.error))


def summarize(outcomes: Sequence[Outcome]) -> ClosedLoop:
    played = [outcome for outcome in outcomes if outcome.ended == "played"]
    answers = sum(outcome.answers for outcome in played)
    return ClosedLoop(
        success=proportion(sum(outcome.success for outcome in played), len(played)) if played else None,
        played=len(played),
        server_lost=len(outcomes) - len(played),
        steps=sum(outcome.steps for outcome in played) / max(1, len(played)),
        unreadable=sum(outcome.unreadable for outcome in played) / max(1, answers),
        outcomes=tuple(outcomes),
    )
