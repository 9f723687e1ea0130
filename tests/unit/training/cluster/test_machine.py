"""The peak counts what a command started, and what it holds in shared memory."""

from __future__ import annotations

import mmap
import subprocess
import sys
from pathlib import Path

import pytest

from deployments.storage.owned import OwnedFolder
from training.cluster import machine

MIB = 1024**2
HOLDER = "import sys; held = bytearray(b'x') * (200 << 20); print('held', flush=True); sys.stdin.read()"
PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {HOLDER!r}])"


def test_the_peak_holds_what_a_grandchild_took_and_gave_back() -> None:
    with machine.PeakMemory(every_s=0.02) as memory:
        before = machine.used_bytes()
        with subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"held\n"
            during = machine.used_bytes()
            process.communicate(b"")
        after = machine.used_bytes()

    assert during - before > 190 * MIB
    assert after < during - 150 * MIB
    assert memory.peak_bytes >= after
    assert str(memory).startswith("peak memory of all processes ")


def test_weight_versions_in_shared_memory_count_once_however_many_caches_link_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "SHARED_MEMORY", tmp_path)
    store, cache = OwnedFolder("store", tmp_path), OwnedFolder("weights", tmp_path)
    before = machine.used_bytes()
    (store.path / "model.safetensors").write_bytes(b"x" * (64 * MIB))
    (cache.path / "model.safetensors").hardlink_to(store.path / "model.safetensors")

    assert 60 * MIB < machine.used_bytes() - before < 100 * MIB


def test_a_weight_version_that_is_being_read_counts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "SHARED_MEMORY", tmp_path)
    store = OwnedFolder("store", tmp_path)
    file = store.path / "model.safetensors"
    before = machine.used_bytes()
    file.write_bytes(b"x" * (64 * MIB))
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert mapped[:: mmap.PAGESIZE] == b"x" * (64 * MIB // mmap.PAGESIZE)  # each of its pages is in memory

        assert 60 * MIB < machine.used_bytes() - before < 100 * MIB
