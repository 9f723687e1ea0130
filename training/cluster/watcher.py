"""A small process beside a command: when the command dies without an end of its own (SIGKILL, out of memory), it ends
all that the command started. `python -m training.cluster.watcher MARK FOLDER`; standard library only."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deployments.storage import owned
from deployments.storage.owned import Owner
from training.cluster import started

ROOT = Path(__file__).resolve().parents[2]
POLL_S = 0.5


@contextmanager
def watched(folder: Path) -> Iterator[None]:
    """While the body runs, the death of this process ends what carries its mark, and removes `folder`."""
    environment = {name: value for name, value in os.environ.items() if name != started.MARK}  # it must outlive us
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [sys.executable, "-m", "training.cluster.watcher", started.mark(Owner.current()), str(folder)],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C in the terminal is not for it
    )
    try:
        yield
    finally:
        process.kill()
        process.wait()


def watch(owner: Owner, folder: Path) -> None:
    """Waits for: the owner's death. Then ends what it started, and takes back its folder and its shared memory."""
    wait_for_death(owner)
    started.end(lambda found: found == owner)
    shutil.rmtree(folder, ignore_errors=True)
    owned.take_back()


def wait_for_death(owner: Owner) -> None:
    try:
        handle = os.pidfd_open(owner.pid)
    except (OSError, AttributeError):  # it is dead already, or this kernel has no such handles
        while not owner.is_dead():
            time.sleep(POLL_S)
        return
    while not owner.is_dead():
        select.select([handle], [], [])


if __name__ == "__main__":
    found = started.parse(sys.argv[1])
    if found is None:
        sys.exit(f"{sys.argv[1]!r} is no mark of a process")
    watch(found, Path(sys.argv[2]))
