"""Work in a process of its own: its value, its reports and its errors arrive here, and its memory does not stay."""

from __future__ import annotations

import os
import signal

import pytest

from configs.base import ConfigError
from training.cluster.child import ChildDied, Report, in_own_process


def square(number: int, report: Report) -> tuple[int, int]:
    for step in range(number):
        report(step, number)
    return number**2, os.getpid()


def refuse(report: Report) -> None:
    raise ConfigError("name another folder")


def break_down(report: Report) -> None:
    raise ZeroDivisionError("a defect")


def be_killed(report: Report) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def wait(report: Report) -> None:
    report(os.getpid())
    signal.pause()


def test_value_and_reports_come_from_another_process() -> None:
    reported: list[tuple[int, int]] = []

    value, pid = in_own_process(square, 3, report=lambda *values: reported.append(values))  # type: ignore[arg-type]

    assert value == 9
    assert pid != os.getpid()
    assert reported == [(0, 3), (1, 3), (2, 3)]


def test_an_error_is_raised_here_as_what_it_is() -> None:
    with pytest.raises(ConfigError, match="name another folder"):
        in_own_process(refuse)
    with pytest.raises(ZeroDivisionError) as raised:
        in_own_process(break_down)
    assert "in break_down" in raised.value.__notes__[0]


def test_a_process_that_was_killed_is_named_with_its_exit_code() -> None:
    with pytest.raises(ChildDied, match=r"be_killed ended without an answer \(exit code -9"):
        in_own_process(be_killed)


def test_ctrl_c_here_ends_the_process() -> None:
    pids: list[int] = []

    def interrupt(pid: int) -> None:
        pids.append(pid)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        in_own_process(wait, report=interrupt)

    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)
