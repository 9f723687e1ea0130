"""A run folder has one owner. Real processes; time is given where another machine's silence is judged."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from deployments.storage import ownership
from deployments.storage.owned import Owner
from deployments.storage.ownership import RunInUse, RunOwner, locked, owned_by_us, owner

ROOT = Path(__file__).resolve().parents[4]
TRAINER = """
import sys
from pathlib import Path
from deployments.storage.ownership import owned_by_us
with owned_by_us(Path(sys.argv[1])):
    print("mine", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def trainer(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that trains in `tmp_path` until its stdin ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", TRAINER, str(tmp_path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == "mine\n"
    yield process
    process.kill()
    process.wait(10)
    process.stdout.close()
    process.stdin.close()


def test_a_second_owner_is_refused_and_told_who_the_first_one_is(
    trainer: subprocess.Popen[str], tmp_path: Path
) -> None:
    with pytest.raises(RunInUse, match=rf"process {trainer.pid} on .* Stop it there"), owned_by_us(tmp_path, 0.0):
        pass


def test_the_folder_of_a_killed_owner_is_free(trainer: subprocess.Popen[str], tmp_path: Path) -> None:
    trainer.send_signal(signal.SIGKILL)
    trainer.wait(10)

    with owned_by_us(tmp_path, 0.0):
        found = owner(tmp_path)
        assert found is not None
        assert found.process == Owner.current()


def test_a_second_owner_waits_for_the_end_of_the_first(trainer: subprocess.Popen[str], tmp_path: Path) -> None:
    assert trainer.stdin is not None
    trainer.stdin.close()  # it ends while we wait

    with owned_by_us(tmp_path, deadline_s=20.0):
        pass


def test_the_folder_is_given_back(tmp_path: Path) -> None:
    with owned_by_us(tmp_path):
        assert owner(tmp_path) is not None
    assert owner(tmp_path) is None


def test_a_number_that_another_process_has_now_does_not_own_the_folder(tmp_path: Path) -> None:
    me = RunOwner.current()
    earlier = replace(me, process=replace(me.process, start=me.process.start - 1))
    (tmp_path / ownership.FILE).write_text(earlier.to_json())

    with owned_by_us(tmp_path, 0.0):
        pass


def test_an_owner_on_another_machine_is_dead_when_its_heart_stands_still(tmp_path: Path) -> None:
    elsewhere = RunOwner(Owner(1, 1, "abcdef01"), "elsewhere", heartbeat=3)
    (tmp_path / ownership.FILE).write_text(elsewhere.to_json())

    with pytest.raises(RunInUse, match="process 1 on elsewhere"), owned_by_us(tmp_path, 0.0):
        pass
    with owned_by_us(tmp_path, deadline_s=10.0, silent_after_s=0.1):
        pass


def test_the_heart_of_an_owner_beats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ownership, "HEARTBEAT_S", 0.01)
    write, beaten = ownership.atomic.write_text, threading.Event()

    def written(path: Path, text: str) -> None:
        write(path, text)
        if RunOwner.from_json(text).heartbeat >= 2:
            beaten.set()

    monkeypatch.setattr(ownership.atomic, "write_text", written)
    with owned_by_us(tmp_path):
        assert beaten.wait(20)


def test_an_owner_whose_folder_was_taken_ends_and_leaves_it_to_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ownership, "HEARTBEAT_S", 0.01)
    other = RunOwner(Owner(1, 1, "abcdef01"), "elsewhere")
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # as in a command that has started Ray
    try:
        with pytest.raises(KeyboardInterrupt), owned_by_us(tmp_path):  # noqa: PT012 - the signal comes while it waits
            with locked(tmp_path):
                ownership.atomic.write_text(tmp_path / ownership.FILE, other.to_json())
            threading.Event().wait(20)
    finally:
        signal.signal(signal.SIGTERM, before)

    assert owner(tmp_path) == other


def test_a_file_that_is_no_owner_is_named_and_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / ownership.FILE).write_text("{")
    with pytest.raises(RunInUse, match=r"owner\.json cannot be read"), owned_by_us(tmp_path):
        pass
