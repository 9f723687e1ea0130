"""A sliding window is never over its limits, wherever one looks, and lets calls through as soon as it may."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.providers import ModelLimits
from deployments.access.rate_window import WINDOW_S, RateWindow


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def window(clock: Clock, **limits: int) -> RateWindow:
    return RateWindow(ModelLimits(**limits), clock)


calls = st.lists(
    st.tuples(
        st.floats(0, 40),  # seconds since the call before it
        st.integers(1, 60),  # tokens expected
        st.integers(0, 60),  # tokens used, of those expected at most
        st.floats(0.1, 30),  # seconds that it takes
    ),
    min_size=1,
    max_size=40,
)


@given(calls, st.integers(0, 5), st.integers(60, 120), st.integers(0, 3))
def test_no_minute_and_no_moment_is_ever_over_a_limit(
    calls: list[tuple[float, int, int, float]], requests: int, tokens: int, places: int
) -> None:
    """Every call waits as long as it is told to, and then sends; other calls end meanwhile."""
    clock = Clock()
    limited = window(clock, requests_per_minute=requests, tokens_per_minute=tokens, concurrent_requests=places)
    sent: list[tuple[float, int]] = []  # (time, tokens that count)
    running: list[tuple[float, str, int, int]] = []  # (end, ticket, used, place in sent)

    def end_what_ended() -> None:
        for call in [call for call in running if call[0] <= clock.now_s]:
            running.remove(call)
            limited.settle(call[1], call[2])
            sent[call[3]] = (sent[call[3]][0], call[2])

    for number, (pause_s, expected, used, takes_s) in enumerate(calls):
        clock.now_s += pause_s
        end_what_ended()
        while (wait_s := limited.wait_s(expected)) > 0:
            assert math.isfinite(wait_s)
            clock.now_s = max(clock.now_s + wait_s, math.nextafter(clock.now_s, math.inf))
            end_what_ended()
        limited.take(str(number), expected, lease_s=takes_s)
        sent.append((clock.now_s, expected))
        running.append((clock.now_s + takes_s, str(number), min(used, expected), len(sent) - 1))

        recent = [counted for at_s, counted in sent if at_s + WINDOW_S > clock.now_s]
        assert not requests or len(recent) <= requests
        assert sum(recent) <= tokens
        assert not places or len([end_s for end_s, *_ in running if end_s > clock.now_s]) <= places


@given(calls, st.integers(1, 5), st.integers(60, 120))
def test_a_call_never_waits_longer_than_the_window_needs(
    calls: list[tuple[float, int, int, float]], requests: int, tokens: int
) -> None:
    """A moment before the time that it is told, the call would be over the limit."""
    clock = Clock()
    limited = window(clock, requests_per_minute=requests, tokens_per_minute=tokens)
    sent: list[tuple[float, int]] = []

    for number, (pause_s, expected, _, _) in enumerate(calls):
        clock.now_s += pause_s
        wait_s = limited.wait_s(expected)
        if wait_s > 1e-6:
            before_s = clock.now_s + wait_s - 1e-6
            recent = [counted for at_s, counted in sent if at_s + WINDOW_S > before_s]
            assert len(recent) + 1 > requests or sum(recent) + expected > tokens
            assert limited.least_wait_s() <= wait_s
            continue
        limited.take(str(number), expected, lease_s=1.0)
        sent.append((clock.now_s, expected))


def test_zero_is_unlimited() -> None:
    limited = window(Clock())
    for number in range(1000):
        assert limited.wait_s(10**9) == 0
        limited.take(str(number), 10**9, lease_s=60)
    assert limited.headers() == ()


def test_real_usage_takes_the_place_of_the_estimate() -> None:
    limited = window(Clock(), tokens_per_minute=100)
    limited.take("a", 80, lease_s=60)
    assert limited.wait_s(50) == WINDOW_S

    limited.settle("a", 50)

    assert limited.wait_s(50) == 0
    assert limited.wait_s(51) == WINDOW_S


def test_an_estimate_stays_where_the_usage_is_not_known() -> None:
    limited = window(Clock(), tokens_per_minute=100, concurrent_requests=1)
    limited.take("a", 80, lease_s=60)

    limited.release("a")

    assert limited.wait_s(20) == 0
    assert limited.wait_s(21) == WINDOW_S


def test_a_call_that_was_never_sent_counts_for_nothing() -> None:
    limited = window(Clock(), requests_per_minute=1, tokens_per_minute=100, concurrent_requests=1)
    limited.take("a", 80, lease_s=60)

    limited.cancel("a")

    assert limited.wait_s(100) == 0


def test_more_usage_than_expected_holds_back_what_comes_next() -> None:
    limited = window(Clock(), tokens_per_minute=100)
    limited.take("a", 10, lease_s=60)

    limited.settle("a", 150)

    assert limited.wait_s(1) == WINDOW_S


def test_the_place_of_a_holder_that_died_is_free_when_its_lease_ends() -> None:
    clock = Clock()
    limited = window(clock, concurrent_requests=2)
    limited.take("a", 1, lease_s=30)
    clock.now_s = 10
    limited.take("b", 1, lease_s=30)

    assert limited.wait_s(1) == 20
    clock.now_s = 30
    assert limited.wait_s(1) == 0
    limited.settle("a", 1)  # it was alive after all: nothing breaks, and nobody else's place is given away
    limited.take("c", 1, lease_s=30)
    assert limited.wait_s(1) == 10


def test_the_window_moves_with_the_oldest_call() -> None:
    clock = Clock()
    limited = window(clock, requests_per_minute=2)
    for at_s in (0.0, 20.0):
        clock.now_s = at_s
        limited.take(str(at_s), 1, lease_s=1)

    clock.now_s = 59.0
    assert limited.wait_s(1) == limited.least_wait_s() == pytest.approx(1.0)
    clock.now_s = 60.0
    assert limited.wait_s(1) == limited.least_wait_s() == 0


def test_what_may_never_be_sent_is_known_at_once() -> None:
    limited = window(Clock(), tokens_per_minute=100)
    assert limited.fits(100)
    assert not limited.fits(101)


def test_a_closed_window_opens_by_itself() -> None:
    clock = Clock()
    limited = window(clock)
    limited.close(5)
    limited.close(2)

    assert limited.wait_s(1) == limited.least_wait_s() == 5
    clock.now_s = 5
    assert limited.wait_s(1) == 0


def test_the_headers_say_limit_rest_and_when_all_of_it_is_free_again() -> None:
    clock = Clock()
    limited = window(clock, requests_per_minute=3, tokens_per_minute=100)
    limited.take("a", 30, lease_s=60)
    clock.now_s = 10.5
    limited.take("b", 90, lease_s=60)
    clock.now_s = 20.0

    assert dict(limited.headers()) == {
        "x-ratelimit-limit-requests": "3",
        "x-ratelimit-remaining-requests": "1",
        "x-ratelimit-reset-requests": "51s",  # 10.5 + 60 - 20, rounded up
        "x-ratelimit-limit-tokens": "100",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "51s",
    }
