"""Work in a process of its own, which gives back all its memory (and its GPU's) when it ends."""

from __future__ import annotations

import multiprocessing
import signal
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from configs.base import UserError

Report = Callable[..., None]
END_S = 10.0  # for a process that has said that it is done


class ChildDied(UserError):
    """The process ended without an answer: it was killed, most likely for its memory."""


def in_own_process(function: Callable[..., Any], *arguments: Any, report: Report | None = None) -> Any:
    """`function(*arguments, report)` in a fresh process; its value, or its exception with the traceback as a note. What
    it reports is reported here. Function, arguments, reports and value are pickled.

    Waits for: the process. Unblocked by: its answer, or its end. Ctrl-C ends it. Raises ChildDied.
    """
    context = multiprocessing.get_context("spawn")  # a fork would keep this process's memory and locks
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(there, function, arguments), name=function.__name__)
    process.start()
    there.close()  # so that the end of the process is the end of the pipe
    try:
        kind, value = here.recv()
        while kind == "report":
            if report is not None:
                report(*value)
            kind, value = here.recv()
        process.join(END_S)
    except EOFError:
        process.join(END_S)
        raise ChildDied(
            f"{function.__name__} ended without an answer (exit code {process.exitcode}; -9 is a kill, mostly for "
            "want of memory): free memory and start again"
        ) from None
    finally:
        here.close()
        process.kill()  # does nothing to one that has ended
        process.join(END_S)
    if kind == "raised":
        raise value
    return value


def _answer(there: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """In the child. A parent that is gone breaks the pipe, which ends this at the next report."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it, too, and ends this process
    try:
        value = function(*arguments, lambda *values: there.send(("report", values)))
    except Exception as error:
        if not isinstance(error, UserError):
            error.add_note(traceback.format_exc())
        there.send(("raised", error))
    else:
        there.send(("value", value))
