"""Checkpoints on disk."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from training.learner import checkpoint


class FullDisk:
    def save(self, folder: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def load(self, folder: Path) -> None: ...


class Small:
    def save(self, folder: Path) -> None:
        (folder / "rank0.pt").write_bytes(b"state")

    def load(self, folder: Path) -> None: ...


def test_a_full_disk_is_named_and_leaves_earlier_checkpoints(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        checkpoint.write(tmp_path, step, Small(), {}, keep=2)
    with pytest.raises(checkpoint.CheckpointError, match=r"step 4 .*No space left.*storage_path"):
        checkpoint.write(tmp_path, 4, FullDisk(), {})
    assert checkpoint.steps(tmp_path) == [2, 3]
    (tmp_path / "step-00000003" / "rank0.pt").write_bytes(b"other")
    with pytest.raises(checkpoint.CheckpointError, match="damaged"):
        checkpoint.restore(tmp_path / "step-00000003", Small())


def test_a_checkpoint_without_its_last_file_is_none(tmp_path: Path) -> None:
    checkpoint.write(tmp_path, 1, Small(), {})
    (tmp_path / "step-00000001" / "done.json").unlink()
    assert checkpoint.latest(tmp_path) is None
    with pytest.raises(checkpoint.CheckpointError, match="no complete checkpoint"):
        checkpoint.restore(tmp_path / "step-00000001", Small())


def test_only_the_newest_are_kept_and_the_latest_is_found(tmp_path: Path) -> None:
    for step in (5, 10, 15):
        checkpoint.write(tmp_path, step, Small(), {"step": step}, keep=2)
    assert checkpoint.steps(tmp_path) == [10, 15]
    latest = checkpoint.latest(tmp_path)
    assert latest is not None
    assert checkpoint.restore(latest, Small()) == {"step": 15}
