"""The process of an environment: how it starts, and how it ends."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from envs.base import EnvUsageError
from envs.bridges.child import EnvProcess
from envs.bridges.wire import PROTOCOL, EnvLost

ROOT = Path(__file__).resolve().parents[4]
FAULTY = "tests.unit.envs.bridges.faulty"
MOST_S = 60  # a test that waits longer has failed


def make(name: str) -> dict[str, object]:
    return {"call": "make", "name": name, "settings": {}}


RESET, STEP = {"call": "reset", "seed": 1}, {"call": "step", "action": "?"}


def ends(pid: int) -> None:
    """Waits for the end of a process that may be nobody's child here."""
    with contextlib.suppress(ProcessLookupError):
        handle = os.pidfd_open(pid)
        waiting = select.poll()
        waiting.register(handle, select.POLLIN)
        ended = waiting.poll(MOST_S * 1000)
        os.close(handle)
        assert ended, f"process {pid} still runs"


@pytest.fixture
def process() -> Iterator[EnvProcess]:
    process = EnvProcess()
    yield process
    process.kill()
    process.join()


def script(folder: Path, body: str) -> str:
    """An interpreter of the test's making; `connection` is its end of the socket."""
    path = folder / "python"
    begin = f"#!{sys.executable}\nimport os, struct, sys\nconnection = int(sys.argv[3])\n"
    path.write_text(f"{begin}def tell(text): os.write(connection, struct.pack('>II', len(text), 0) + text)\n{body}\n")
    path.chmod(0o755)
    return str(path)


def test_an_interpreter_without_numpy_is_told_what_it_needs(tmp_path: Path) -> None:
    other = tmp_path / "python"  # this one without its installed packages
    other.write_text(f'#!/bin/sh\nexec {sys.executable} -S -c "$2" "$3" "$4" "$5" "$6"\n')
    other.chmod(0o755)

    with pytest.raises(
        EnvUsageError, match=r"ModuleNotFoundError: No module named 'numpy'.*must be Python 3\.11"
    ) as no:
        EnvProcess(str(other)).call(make("tictactoe"))

    assert str(other) in str(no.value)


def test_an_interpreter_that_does_not_exist_is_named() -> None:
    with pytest.raises(EnvUsageError, match="/nowhere/python cannot be started"):
        EnvProcess("/nowhere/python")


def test_another_version_of_the_protocol_is_refused(tmp_path: Path) -> None:
    process = EnvProcess(script(tmp_path, "tell(b'{\"protocol\": 99}'); os.read(connection, 1)"))

    with pytest.raises(EnvUsageError, match=rf"version 99 of the protocol and this rayward version {PROTOCOL}"):
        process.call(make("tictactoe"))

    assert not process.usable
    process.kill()
    assert process.join() == -signal.SIGKILL


def test_a_process_that_ends_before_its_first_word_is_lost(tmp_path: Path) -> None:
    process = EnvProcess(script(tmp_path, "sys.exit(7)"))
    with pytest.raises(EnvLost, match="the environment was lost: its process ended with exit code 7"):
        process.call(make("tictactoe"))


def test_an_environment_that_exits_is_told_with_its_exit_code(process: EnvProcess) -> None:
    process.call(make(f"{FAULTY}:Exiting"))
    process.call(RESET)
    with pytest.raises(EnvLost, match="its process ended with exit code 3"):
        process.call(STEP)
    assert not process.usable


def test_a_process_that_somebody_kills_is_told_so(process: EnvProcess) -> None:
    process.call(make("tictactoe"))
    os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(EnvLost, match="its process was killed"):
        process.call(RESET)


def test_killing_unblocks_the_caller_and_ends_what_the_environment_started(process: EnvProcess) -> None:
    process.call(make(f"{FAULTY}:Holding"))
    value, _ = process.call(RESET)
    lost: list[Exception] = []

    def step() -> None:
        try:
            process.call(STEP)
        except EnvLost as error:
            lost.append(error)

    stepping = threading.Thread(target=step)
    stepping.start()
    while process.usable:  # until the call is under way
        pass
    process.kill()
    process.kill()
    stepping.join(MOST_S)

    assert len(lost) == 1
    assert process.join() == -signal.SIGKILL
    ends(int(value["text"]))


def test_a_killed_parent_leaves_nothing_even_when_a_library_holds_the_interpreter() -> None:
    """As Ray ends a worker: by SIGKILL."""
    program = f"""
from envs.bridges.child import EnvProcess
import threading
process = EnvProcess()
process.call({make(f"{FAULTY}:Holding")!r})
value, _ = process.call({RESET!r})
threading.Thread(target=process.call, args=({STEP!r},)).start()
while process.usable: pass
print(process.pid, value["text"], flush=True)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    child, simulator = map(int, parent.stdout.readline().split())

    parent.kill()
    parent.communicate()

    ends(child)
    ends(simulator)
