"""The processes that a command started, however far away from it: found by a mark in their environment, and ended.

Ray's workers, Serve's replicas, their engines and HAProxy inherit the environment of the Ray that a command starts. The
mark names that command's process (number, start time, machine), so that its children can be told from everybody
else's, and those of a dead command from those of a living one. Linux only: elsewhere nothing is found.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from deployments.storage.owned import Owner

logger = logging.getLogger("rayward")

MARK = "RAYWARD_STARTED_BY"
VALUE = re.compile(r"(?P<pid>\d+)-(?P<start>\d+)-(?P<place>[0-9a-f]{8})")
POLL_S = 0.05


@dataclass(frozen=True)
class Started:
    """A living process of this user, and the command that it belongs to."""

    pid: int
    owner: Owner


def mark(owner: Owner) -> str:
    """The value of MARK. `parse(mark(owner)) == owner`."""
    return f"{owner.pid}-{owner.start}-{owner.place}"


def parse(value: str) -> Owner | None:
    found = VALUE.fullmatch(value)
    return Owner(int(found["pid"]), int(found["start"]), found["place"]) if found else None


def processes(belongs: Callable[[Owner], bool]) -> list[Started]:
    """Living processes, this one left out, whose mark names an owner for which `belongs` is true."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        pid = int(entry.name)
        owner = _owner_of(pid)
        if pid != os.getpid() and owner is not None and belongs(owner):
            found.append(Started(pid, owner))
    return found


def end(belongs: Callable[[Owner], bool], grace_s: float = 0.0, deadline_s: float = 20.0) -> list[Started]:
    """Ends them and what they start meanwhile: SIGTERM, after `grace_s` SIGKILL. Waits for: their end, at most
    `deadline_s`. Returns those that were there at first."""
    began = time.monotonic()
    first = left = processes(belongs)
    told: set[int] = set()
    while left and time.monotonic() - began < deadline_s:
        late = time.monotonic() - began >= grace_s
        for process in left:
            if late or process.pid not in told:
                told.add(process.pid)
                _send(process, signal.SIGKILL if late else signal.SIGTERM)
        time.sleep(POLL_S)
        left = processes(belongs)
    if left:
        logger.error("these processes did not end within %g s: %s", deadline_s, [process.pid for process in left])
    return first


def end_orphans() -> list[Started]:
    """Ends what commands that were killed on this machine left running."""
    found = end(lambda owner: owner.is_dead())
    if found:
        logger.warning("ended %d processes that a killed command had left running", len(found))
    return found


def _owner_of(pid: int) -> Owner | None:
    """Of a living process that may be looked at; None for all others, and for those that are ending."""
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return None
    for entry in environment.split(b"\0"):
        name, _, value = entry.partition(b"=")
        if name == MARK.encode():
            return parse(value.decode(errors="replace"))
    return None


def _send(process: Started, number: signal.Signals) -> None:
    """The number may belong to another process by now: the signal goes to the one whose mark was read again."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # it ended, or is not ours any more
        handle = os.pidfd_open(process.pid)
        try:
            if _owner_of(process.pid) == process.owner:
                signal.pidfd_send_signal(handle, number)
        finally:
            os.close(handle)
