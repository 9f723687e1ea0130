"""A run folder has one owner: the process that trains in it. `owned_by_us` takes the folder, or says who has it.

    {run}/owner.json     who: process number, start time and place (kernel and container), host name, heartbeat

An owner on this machine is alive or dead: the kernel says so. Of one on another machine only the heartbeat can be seen;
it counts as dead once that has stood still for `silent_after_s` on our own clock (the clocks of two machines differ).
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from configs.base import UserError
from deployments.storage import atomic
from deployments.storage.owned import Owner

logger = logging.getLogger("rayward")

FILE, LOCK = "owner.json", ".owner.lock"
HEARTBEAT_S = 5.0
POLL_S = 0.2


class RunInUse(UserError):
    """Another living process trains in this run folder; the message names it."""


@dataclass(frozen=True)
class RunOwner:
    """Who trains in a run folder."""

    process: Owner
    host: str
    heartbeat: int = 0  # grows while the owner lives

    @classmethod
    def current(cls) -> RunOwner:
        return cls(Owner.current(), socket.gethostname())

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> RunOwner:
        document = json.loads(text)
        return cls(Owner(**document["process"]), document["host"], document["heartbeat"])


@contextmanager
def owned_by_us(run: Path, deadline_s: float = 45.0, silent_after_s: float = 30.0) -> Iterator[None]:
    """The folder is ours while the body runs. Waits for: the end of a former owner, at most `deadline_s` (above
    `silent_after_s`, or one on another machine is never found dead). Raises RunInUse."""
    mine = _acquire(run, deadline_s, silent_after_s, time.monotonic)
    stop = threading.Event()
    beating = threading.Thread(target=_beat, args=(run, mine, stop), name="run-owner", daemon=True)
    beating.start()
    try:
        yield
    finally:
        stop.set()
        beating.join()
        _release(run, mine)


def owner(run: Path) -> RunOwner | None:
    """Who is written in the folder, dead or alive; None for nobody."""
    try:
        return RunOwner.from_json((run / FILE).read_text())
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise RunInUse(
            f"{run / FILE} cannot be read ({error!r}): delete it if nothing trains in this folder"
        ) from error


def _acquire(run: Path, deadline_s: float, silent_after_s: float, clock: Callable[[], float]) -> RunOwner:
    mine, began = RunOwner.current(), clock()
    seen, seen_at = None, began
    while True:
        with locked(run):
            found = owner(run)
            if found != seen:
                seen, seen_at = found, clock()
            if found is None or _is_dead(found, clock() - seen_at >= silent_after_s):
                atomic.write_text(run / FILE, mine.to_json())
                return mine
        if clock() - began >= deadline_s:
            raise RunInUse(
                f"{run} is in use: process {found.process.pid} on {found.host} trains in it and did not end within "
                f"{deadline_s:g} s. Stop it there (kill {found.process.pid}), or let it finish"
            )
        if found is seen and seen_at == began:
            logger.warning("waiting for process %d on %s, which trains in %s", found.process.pid, found.host, run)
        time.sleep(POLL_S)


def _is_dead(found: RunOwner, silent: bool) -> bool:
    if found.process.place == Owner.current().place and found.process.start:
        return found.process.is_dead()
    return silent


def _beat(run: Path, mine: RunOwner, stop: threading.Event) -> None:
    """Shows other machines that this process lives. Stops when: the folder is given back, or another process took it
    because ours was silent for too long (its machine stood still): then training ends as by SIGTERM."""
    beat = mine
    while not stop.wait(HEARTBEAT_S):
        beat = replace(beat, heartbeat=beat.heartbeat + 1)
        try:
            with locked(run):
                found = owner(run)
                if found is not None and found.process != mine.process:
                    logger.error("%s belongs to process %d on %s now: ending", run, found.process.pid, found.host)
                    # It wakes the main thread from any wait. Not SIGINT: a shell's background jobs ignore that.
                    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
                    return
                atomic.write_text(run / FILE, beat.to_json())
        except OSError as error:
            logger.warning("the heartbeat of %s cannot be written: %s", run, error)


def _release(run: Path, mine: RunOwner) -> None:
    with locked(run):
        found = owner(run)
        if found is not None and found.process == mine.process:
            (run / FILE).unlink()


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """For the moment of a change: two that find the same dead owner do not both take its place."""
    handle = os.open(run / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
