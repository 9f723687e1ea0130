"""How long a new request would wait, and who is refused: with a clock that the tests move."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from deployments.errors import PolicyError
from deployments.replicas.backlog import SHARE, Backlog


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Engine:
    """A backlog in front of `seats` places; each request is answered `answer_s` after the one before."""

    def __init__(self, seats: int, answer_s: float) -> None:
        self.clock = Clock()
        self.backlog = Backlog(seats, self.clock)
        self._answer_s = answer_s
        self._places: list[ExitStack] = []

    def come(self, remaining_s: float = 1e9) -> None:
        place = ExitStack()
        place.enter_context(self.backlog.place(remaining_s))
        self._places.append(place)

    def answer(self, requests: int = 1) -> None:
        for _ in range(requests):
            self.clock.now += self._answer_s
            self._places.pop(0).close()


def busy(seats: int, answer_s: float) -> Engine:
    """An engine that has been full for long enough to be known."""
    engine = Engine(seats, answer_s)
    for _ in range(4 * seats):
        engine.come()
    engine.answer(3 * seats)
    assert len(engine.backlog) == seats
    return engine


def test_a_request_is_expected_to_take_as_long_as_those_before_it_and_itself() -> None:
    engine = busy(seats=4, answer_s=0.5)
    assert engine.backlog.expected_s() == pytest.approx((4 + 1) * 0.5)
    engine.come()
    assert engine.backlog.expected_s() == pytest.approx((5 + 1) * 0.5)


def test_a_request_that_would_wait_in_vain_is_refused_and_told_when_to_try_again() -> None:
    engine = busy(seats=4, answer_s=0.5)
    with pytest.raises(PolicyError, match="4 requests are before this one") as refused:
        engine.come(remaining_s=2.5 / SHARE - 0.01)
    assert (refused.value.kind, refused.value.retry_after_s) == ("overloaded", pytest.approx(2.5))
    engine.come(remaining_s=2.5 / SHARE + 0.01)
    assert len(engine.backlog) == 5, "what was refused holds no place"


def test_a_request_that_finds_a_free_seat_is_never_refused() -> None:
    engine = busy(seats=4, answer_s=0.5)
    engine.answer()
    engine.come(remaining_s=0.001)


def test_nobody_is_refused_before_the_engine_was_full_for_a_while() -> None:
    engine = Engine(seats=2, answer_s=60.0)
    for _ in range(5):
        engine.come(remaining_s=0.001)
    engine.answer(2)
    engine.come(remaining_s=0.001)


def test_a_quiet_time_does_not_make_the_engine_look_slow() -> None:
    engine = busy(seats=2, answer_s=0.5)
    engine.answer(2)
    engine.clock.now += 3600.0  # nobody asks
    engine.come()
    engine.answer()  # one at a time: how fast they leave is how fast they come
    engine.clock.now += 3600.0
    engine.come()
    engine.come()
    assert engine.backlog.expected_s() == pytest.approx((2 + 1) * 0.5)


def test_an_engine_that_has_become_faster_is_known_by_its_last_answers() -> None:
    engine = busy(seats=2, answer_s=8.0)
    engine._answer_s = 0.25
    for _ in range(6):
        engine.come()
    engine.answer(6)
    assert engine.backlog.expected_s() == pytest.approx((2 + 1) * 0.25)


def test_a_request_that_failed_has_left_too() -> None:
    backlog = Backlog(1)
    with pytest.raises(ZeroDivisionError), backlog.place(1.0):
        raise ZeroDivisionError
    assert len(backlog) == 0
