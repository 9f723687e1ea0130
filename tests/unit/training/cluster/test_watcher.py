"""What a command started ends with it, however it dies, and nothing else does. Real processes, real signals."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from deployments.storage.owned import Owner
from training.cluster import started

ROOT = Path(__file__).resolve().parents[4]
# A command: it starts a child, which starts a grandchild in a session of its own; the grandchild's number is printed.
COMMAND = """
import os, subprocess, sys
from pathlib import Path
from deployments.storage.owned import Owner
from training.cluster import started, watcher
CHILD = '''
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"], start_new_session=True)
print(child.pid, flush=True)
child.wait()
'''
with watcher.watched(Path(sys.argv[1])):
    os.environ[started.MARK] = started.mark(Owner.current())
    subprocess.Popen([sys.executable, "-c", CHILD])
    sys.stdin.read()
    started.end(lambda owner: owner == Owner.current(), grace_s=5)
"""


@pytest.fixture
def command(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    (tmp_path / "folder").mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, str(tmp_path / "folder")],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    grandchild = int(process.stdout.readline())
    yield process, grandchild
    process.kill()
    process.communicate()
    for left in (grandchild,):
        with contextlib.suppress(ProcessLookupError):
            os.kill(left, signal.SIGKILL)


def ended(pid: int, deadline_s: float = 20.0) -> bool:
    import select

    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], deadline_s)[0])
    finally:
        os.close(handle)


def test_a_killed_command_takes_all_that_it_started_with_it(
    command: tuple[subprocess.Popen[str], int], tmp_path: Path
) -> None:
    process, grandchild = command

    process.send_signal(signal.SIGKILL)

    assert ended(grandchild)
    while (tmp_path / "folder").exists():  # the watcher removes it next
        pass


def test_a_command_that_ends_by_itself_ends_what_it_started(command: tuple[subprocess.Popen[str], int]) -> None:
    process, grandchild = command

    process.communicate("")

    assert ended(grandchild)


def test_what_a_living_command_started_is_no_orphan(command: tuple[subprocess.Popen[str], int]) -> None:
    _, grandchild = command

    assert grandchild not in [process.pid for process in started.end_orphans()]
    assert not ended(grandchild, deadline_s=0)


def test_the_next_start_ends_what_a_command_left_whose_watcher_died_with_it() -> None:
    dead = replace(Owner.current(), start=Owner.current().start + 1)  # our number, of another process
    orphan = subprocess.Popen(["sleep", "600"], env={**os.environ, started.MARK: started.mark(dead)})
    try:
        assert orphan.pid in [process.pid for process in started.end_orphans()]
        assert orphan.wait(10) == -signal.SIGKILL
    finally:
        orphan.kill()


def test_a_process_that_ignores_the_polite_signal_is_killed_after_the_grace() -> None:
    owner = replace(Owner.current(), start=Owner.current().start + 2)
    stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); signal.pause()"
    environment = {**os.environ, started.MARK: started.mark(owner)}
    process = subprocess.Popen([sys.executable, "-c", stubborn], env=environment, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        started.end(lambda found: found == owner, grace_s=0.2)
        assert process.wait(10) == -signal.SIGKILL
    finally:
        process.kill()
        process.communicate()


def test_a_mark_names_a_process_and_its_start() -> None:
    me = Owner.current()
    assert started.parse(started.mark(me)) == me
    assert started.parse("not a mark") is None
