"""Commands as a user starts them, and what they leave behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import psutil

MARK = "RAYWARD_TEST_MARK"  # in the environment of all that a command starts, however far away from it
END_S = 60.0


class Process:
    """A running command, in a process session of its own; a thread reads what it prints, which can be awaited. As a
    context it ends with its block: what a failed test leaves running would slow the others down."""

    def __init__(self, command: list[str], env: dict[str, str], cwd: Path) -> None:
        self.popen = subprocess.Popen(
            # A shell's background job ignores SIGINT, and so would all that it starts.
            ["env", "--default-signal=INT", *command],
            env=env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            text=True,
            errors="replace",
        )
        self.printed = ""
        self._over = False
        self._news = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.end(signal.SIGINT, END_S)
        except subprocess.TimeoutExpired:
            os.killpg(self.popen.pid, signal.SIGKILL)
            raise

    def _read(self) -> None:
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            with self._news:
                self.printed += line
                self._news.notify_all()
        with self._news:
            self._over = True
            self._news.notify_all()

    def wait_for(self, text: str, deadline_s: float) -> None:
        """AssertionError at the deadline, and when the process ends before it prints `text`."""
        with self._news:
            self._news.wait_for(lambda: text in self.printed or self._over, deadline_s)
            assert text in self.printed, f"no {text!r} within {deadline_s:g} s:\n{self.printed[-3000:]}"

    def end(self, number: signal.Signals, deadline_s: float) -> int:
        """Sends a signal, unless it ended before, and waits for the end; returns the exit code."""
        if self.popen.poll() is None:
            self.popen.send_signal(number)
        return self.popen.wait(deadline_s)


def marked(mark: str) -> list[psutil.Process]:
    """Living processes whose environment has this value of MARK."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):  # it ended meanwhile, or is not ours to look at
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def wait_until(condition: Callable[[], bool], deadline_s: float, what: Callable[[], str]) -> None:
    """Asks again and again: for what tells nobody that it happened."""
    until = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < until, f"not within {deadline_s:g} s: {what()}"
        time.sleep(0.2)
