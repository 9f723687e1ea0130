"""Which groups may start when, and that none is lost or doubled."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.rollouts.buffer import GroupBuffer, task_at
from training.types import Episode, Group, Task, Turn


def group(index: int, version: int = 0) -> Group:
    task = Task("e", 1, index)
    return Group(task, (Episode(task, 0, (Turn((1,), (2,), (-1.0,), version, 1.0),), "completed"),))


def test_synchronous_rollouts_wait_for_the_step_before() -> None:
    buffer = GroupBuffer(groups_per_step=2, max_lag=0, steps=3)
    assert list(buffer.startable()) == [0, 1]
    assert list(buffer.startable()) == []
    buffer.version = 1
    assert list(buffer.startable()) == [2, 3]


@given(st.integers(0, 3), st.integers(1, 4), st.integers(1, 5))
def test_every_position_is_given_out_once_and_within_the_lag(lag: int, per_step: int, steps: int) -> None:
    buffer = GroupBuffer(per_step, lag, steps)
    started: list[int] = []
    for step in range(steps):
        for index in buffer.startable():
            assert buffer.step_of(index) - buffer.version <= lag
            started.append(index)
            buffer.add(group(index, buffer.min_version(index)))
        assert buffer.ready(step)
        assert buffer.lag(buffer.take(step), step) <= lag
        buffer.version = step + 1
    assert started == list(range(per_step * steps))


def test_a_group_that_is_delivered_twice_is_refused() -> None:
    buffer = GroupBuffer(2, 0, 1)
    buffer.add(group(0))
    with pytest.raises(ValueError, match="delivered twice"):
        buffer.add(group(0))
    assert buffer.missing(0) == [1]


def test_a_resumed_buffer_does_not_play_what_waits_in_it() -> None:
    buffer = GroupBuffer(2, 1, 4, first_step=1, base_version=10)
    buffer.add(group(3, 10))
    assert list(buffer.startable()) == [2, 4, 5]
    assert buffer.min_version(4) == 11


def test_tasks_depend_on_run_seed_and_position_alone() -> None:
    assert task_at("e", 1, 7) == task_at("e", 1, 7)
    assert len({task_at("e", 1, index).seed for index in range(500)}) == 500
