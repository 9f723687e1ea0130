from __future__ import annotations

import random
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.chunks.real_time import ChunkSchedule, DelayEstimate, committed_after, prefix_weights
from deployments.protocol.act import Actions, Committed

HORIZON = 16
TICK_S = 1 / 50


def counting_chunk(asked_at: int, committed: Committed | None = None, horizon: int = HORIZON) -> Actions:
    """The policy a_t = t: whoever asks at step s gets s, s + 1, s + 2, ..., the frozen rows as they were sent."""
    chunk = np.arange(asked_at, asked_at + horizon, dtype=np.float32)[:, None]
    if committed is not None:
        chunk[: committed.delay] = committed.actions[: committed.delay]
    return chunk


@dataclass
class Run:
    executed: list[float] = field(default_factory=list)  # what was sent as an action
    sent: list[float] = field(default_factory=list)  # per tick, what was held included
    too_late: int = 0  # answers that came after their frozen part was over


def play(delays_s: list[float], ticks: int) -> Run:
    """A robot at 50 Hz on a virtual clock, with one question in flight at a time; the n-th answer takes delays_s[n]."""
    schedule, delay, run = ChunkSchedule(max_delay=HORIZON), DelayEstimate(), Run()
    delays = iter(delays_s)
    in_flight: tuple[float, int, Committed | None] | None = None
    for tick in range(ticks):
        now_s = tick * TICK_S
        step = len(run.executed)
        if in_flight is not None and in_flight[0] <= now_s:
            _, asked_at, committed = in_flight
            schedule.accept(counting_chunk(asked_at, committed), asked_at)
            delay.measured(step - asked_at)
            run.too_late += committed is not None and step - asked_at > committed.delay
            in_flight = None
        if in_flight is None and schedule.is_due(step, delay.expected()):
            in_flight = (now_s + next(delays), step, schedule.committed(step, delay.expected()))
        action = schedule.next_action(step)
        if action is not None:
            run.executed.append(float(action[0]))
        if run.executed:
            run.sent.append(run.executed[-1])
    return run


@given(st.integers(0, 2**32), st.floats(0.0, 1.0))
def test_behind_any_delay_up_to_a_horizon_the_executed_actions_neither_jump_nor_repeat(seed: int, share: float) -> None:
    """The bound: from one executed action to the next it is always exactly one step, whatever the network does; from
    one tick to the next at most one step, and none only while nothing was there to be executed."""
    rng = random.Random(seed)
    first_slow = 3 * HORIZON * TICK_S
    jittered = [rng.uniform(0.0, share * HORIZON * TICK_S) for _ in range(1000)]
    run = play([first_slow, *jittered], ticks=1000)
    assert len(run.executed) > 300
    assert set(np.diff(run.executed)) == {1.0}
    assert set(np.diff(run.sent)) <= {0.0, 1.0}


def test_where_answers_come_within_half_a_horizon_the_robot_never_waits_after_the_first() -> None:
    rng = random.Random(0)
    run = play([1.0, *(rng.uniform(0.0, (HORIZON // 2 - 1) * TICK_S) for _ in range(500))], ticks=500)
    assert set(np.diff(run.sent)) == {1.0}


def test_once_a_delay_was_seen_answers_come_within_their_frozen_part() -> None:
    run = play([0.0, *[4.5 * TICK_S] * 100], ticks=500)
    assert run.too_late == 1, "only the answer with which the delay was measured"


def test_what_is_left_is_committed_and_the_part_that_will_be_executed_is_frozen() -> None:
    schedule = ChunkSchedule(max_delay=3)
    assert schedule.committed(0, delay=2) is None
    schedule.accept(counting_chunk(10), asked_at_step=10)
    committed = schedule.committed(13, delay=2)
    assert committed is not None
    assert committed.actions.ravel().tolist() == list(range(13, 26))
    assert committed.delay == 2


@pytest.mark.parametrize(
    ("executed", "delay", "max_delay", "expected"),
    [(0, 5, None, 4), (3, 5, None, 1), (0, 3, 2, 2), (0, -1, None, 0)],
)
def test_the_frozen_part_is_no_longer_than_what_is_left_and_than_the_policy_takes(
    executed: int, delay: int, max_delay: int | None, expected: int
) -> None:
    committed = committed_after(counting_chunk(0, horizon=4), executed, delay, max_delay)
    assert committed is not None
    assert committed.delay == expected


def test_nothing_is_committed_of_a_chunk_that_is_over() -> None:
    assert committed_after(counting_chunk(0, horizon=4), executed=4, delay=1) is None


def test_an_answer_that_was_overtaken_is_not_taken() -> None:
    schedule = ChunkSchedule()
    assert schedule.accept(counting_chunk(8), asked_at_step=8)
    assert not schedule.accept(counting_chunk(4) + 100, asked_at_step=4)
    action = schedule.next_action(9)
    assert action is not None
    assert action[0] == 9


def test_a_robot_without_actions_holds() -> None:
    schedule = ChunkSchedule()
    assert schedule.next_action(0) is None
    schedule.accept(counting_chunk(0, horizon=4), asked_at_step=0)
    assert schedule.remaining(3) == 1
    assert schedule.next_action(4) is None


def test_the_next_chunk_is_due_at_half_of_the_running_one_or_earlier_where_answers_are_slow() -> None:
    schedule = ChunkSchedule()
    schedule.accept(counting_chunk(0), asked_at_step=0)
    assert [step for step in range(HORIZON) if schedule.is_due(step, delay=2)][0] == HORIZON // 2
    assert [step for step in range(HORIZON) if schedule.is_due(step, delay=12)][0] == HORIZON - 13


def test_the_longest_of_the_last_delays_is_expected() -> None:
    delay = DelayEstimate(initial=2, window=3)
    assert delay.expected() == 2
    for steps in (9, 1, 4, 3):
        delay.measured(steps)
    assert delay.expected() == 4


@given(st.integers(1, 40), st.data())
def test_the_tie_to_the_running_chunk_is_whole_while_frozen_then_falls_to_nothing(
    horizon: int, data: st.DataObject
) -> None:
    prefix = data.draw(st.integers(0, horizon))
    delay = data.draw(st.integers(0, prefix))
    weights = prefix_weights(horizon, prefix, delay)
    assert (weights[:delay] == 1).all()
    assert (weights[prefix:] == 0).all()
    assert (np.diff(weights) <= 0).all()
    assert (weights[delay:prefix] < 1).all()
