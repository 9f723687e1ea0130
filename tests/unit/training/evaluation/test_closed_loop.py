"""Episodes of a policy that is somewhere else: what counts, and what is the server's fault."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Barrier, Event

import pytest

from deployments.errors import PolicyError
from training.evaluation.closed_loop import Answer, Moved, Outcome, Player, play, play_all, summarize

GOAL, LIMIT = 3, 6


class Line:
    """A walk on a line from the seed's place: at GOAL it is won, after LIMIT moves lost."""

    def reset(self, seed: int) -> int:
        self.place, self.moves = seed, 0
        return self.place

    def step(self, move: int) -> Moved[int]:
        self.place, self.moves = self.place + move, self.moves + 1
        won = self.place == GOAL
        return Moved(self.place, won, won or self.moves >= LIMIT)


def forward(place: int) -> Answer[int]:
    return Answer([1])


def failing(kind: str, after: int) -> Callable[[int], Answer[int]]:
    """Goes backward, and gives no answer after so many."""
    left = iter(range(after))

    def act(place: int) -> Answer[int]:
        if next(left, None) is None:
            raise PolicyError(kind, "the machine is gone")
        return Answer([-1])

    return act


def opener(*players: Player[int, int]) -> Callable[[], object]:
    """Opens an episode of each player, in their order, and of the last one for ever."""
    waiting = list(players)

    @contextmanager
    def opened() -> Iterator[tuple[Line, Player[int, int]]]:
        yield Line(), waiting.pop(0) if len(waiting) > 1 else waiting[0]

    return opened


def test_an_episode_ends_with_the_game_and_tells_how() -> None:
    assert play(Line(), Player(forward), seed=0) == Outcome(0, "played", True, 3, 3, 0)
    assert play(Line(), Player(lambda place: Answer([-1])), seed=0) == Outcome(0, "played", False, LIMIT, LIMIT, 0)


def test_all_moves_of_an_answer_are_made_before_the_policy_is_asked_again() -> None:
    asked = []

    def act(place: int) -> Answer[int]:
        asked.append(place)
        return Answer([1, 1])

    outcome = play(Line(), Player(act), seed=0)
    assert asked == [0, 2], "the second answer's second move comes after the end"
    assert (outcome.steps, outcome.answers) == (3, 2)


def test_an_answer_without_a_move_is_none() -> None:
    with pytest.raises(ValueError, match="at least one move"):
        Answer([])


def test_answers_that_could_not_be_read_are_counted_and_played() -> None:
    outcome = play(Line(), Player(lambda place: Answer([1], parse_ok=place > 0)), seed=0)
    assert (outcome.success, outcome.unreadable, outcome.answers) == (True, 1, 3)


def test_the_server_forgets_what_was_before_an_episode_once() -> None:
    begun = []
    play(Line(), Player(forward, lambda: begun.append("forgotten")), seed=0)
    assert begun == ["forgotten"]


@pytest.mark.parametrize("kind", ["unavailable", "deadline_exceeded", "overloaded", "engine_failed", "internal"])
def test_an_episode_whose_server_is_lost_is_no_lost_episode(kind: str) -> None:
    outcome = play(Line(), Player(failing(kind, after=2)), seed=0)
    assert (outcome.ended, outcome.success, outcome.steps) == ("server_lost", False, 2)
    assert "the machine is gone" in outcome.error


def test_a_server_that_is_lost_at_the_very_beginning_is_lost_too() -> None:
    def begin() -> None:
        raise PolicyError("unavailable", "nobody is there")

    assert play(Line(), Player(forward, begin), seed=0).ended == "server_lost"


@pytest.mark.parametrize("kind", ["invalid_request", "unauthenticated", "not_found"])
def test_a_question_that_is_refused_ends_the_evaluation(kind: str) -> None:
    with pytest.raises(PolicyError, match="the machine is gone"):
        play_all(opener(Player(failing(kind, after=0))), range(5))  # type: ignore[arg-type]


def test_success_is_the_share_of_the_episodes_that_were_played() -> None:
    players = (Player(forward), Player(failing("unavailable", 1)), Player(forward), Player(lambda place: Answer([-1])))
    result = summarize(play_all(opener(*players), [0, 0, 0, 0]))  # type: ignore[arg-type]
    assert (result.played, result.server_lost) == (3, 1)
    assert result.success is not None
    assert result.success.value == pytest.approx(2 / 3)
    assert result.steps == pytest.approx((3 + 3 + LIMIT) / 3)
    assert result.errors == ["unavailable: the machine is gone"]


def test_without_an_episode_that_was_played_there_is_no_success_rate() -> None:
    result = summarize(play_all(opener(Player(failing("unavailable", 0))), range(2)))  # type: ignore[arg-type]
    assert result.success is None
    assert result.server_lost == 2


def test_a_server_that_stays_away_is_not_asked_for_every_episode() -> None:
    asked = []

    def act(place: int) -> Answer[int]:
        asked.append(place)
        raise PolicyError("unavailable", "gone")

    outcomes = play_all(opener(Player(act)), range(50), give_up_after=3)  # type: ignore[arg-type]
    assert len(asked) == 3
    assert [outcome.ended for outcome in outcomes] == ["server_lost"] * 50
    assert outcomes[-1].error == "not begun: the server was lost in 3 episodes in a row"


def test_a_server_that_comes_back_is_asked_on() -> None:
    lost, there = Player(failing("unavailable", 0)), Player(forward)
    players = (lost, lost, there, lost, lost, there)
    outcomes = play_all(opener(*players), [0] * 6, give_up_after=3)  # type: ignore[arg-type]
    assert [outcome.ended == "played" for outcome in outcomes] == [False, False, True, False, False, True]


def test_episodes_are_played_side_by_side_and_told_in_the_order_of_the_seeds() -> None:
    together = Barrier(3, timeout=10)

    def act(place: int) -> Answer[int]:
        if place in (0, 1, 2):
            together.wait()  # until three episodes have asked: fails where they take turns
        return Answer([GOAL - place])

    heard: list[int] = []
    outcomes = play_all(
        opener(Player(act)),  # type: ignore[arg-type]
        [2, 0, 1],
        parallel=3,
        told=lambda outcome: heard.append(outcome.seed),
    )
    assert [outcome.seed for outcome in outcomes] == [2, 0, 1]
    assert sorted(heard) == [0, 1, 2]
    assert all(outcome.success for outcome in outcomes)


def test_when_one_episode_ends_the_evaluation_the_others_stop_at_their_next_question() -> None:
    asked, refused = Event(), Event()
    questions: list[int] = []

    def endless(place: int) -> Answer[int]:
        questions.append(place)
        asked.set()
        assert refused.wait(10)
        return Answer([-1])

    def refusing(place: int) -> Answer[int]:
        assert asked.wait(10)
        raise PolicyError("unauthenticated", "a wrong key")

    opened = opener(Player(endless), Player(refusing))

    @contextmanager
    def telling() -> Iterator[tuple[Line, Player[int, int]]]:
        try:
            with opened() as both:  # type: ignore[attr-defined]
                yield both
        except PolicyError:
            refused.set()
            raise

    with pytest.raises(PolicyError, match="a wrong key"):
        play_all(telling, [0, 0], parallel=2)
    assert len(questions) <= 2, "it was played on to its end"
