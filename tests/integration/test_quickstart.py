"""The first command of a newcomer, shortened: what it leaves behind when it is done, and when it is stopped."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import uuid
from pathlib import Path

import pytest

from tests.integration.conftest import ROOT
from tests.integration.processes import MARK, Process, marked, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(420)]

SHORT = (
    "model.tiny.intermediate_size=128",
    "warmstart.episodes=64",
    "warmstart.steps=4",
    "rollout.groups_per_step=4",
    "evaluation.episodes=8",
)


def quickstart(storage: Path, mark: str, *overrides: str) -> Process:
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "PYTEST_"))}
    env = {**ours, MARK: mark, "PYTHONPATH": str(ROOT)}
    command = [
        sys.executable,
        "-m",
        "training.commands.quickstart",
        "tictactoe",
        f"storage_path={storage}",
        *SHORT,
        *overrides,
    ]
    return Process(command, env, ROOT)


def haproxy_folders() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob("rayward-haproxy-*"))


def test_it_shows_three_policies_a_picture_and_what_to_try_next(tmp_path: Path) -> None:
    mark, before = uuid.uuid4().hex, haproxy_folders()
    process = quickstart(tmp_path, mark, "steps=2")

    assert process.popen.wait(300) == 0, process.printed[-3000:]

    process.wait_for("Try next:", deadline_s=10)
    (run,) = (tmp_path / "runs" / "default" / "tictactoe").iterdir()
    assert (run / "learning_curve.png").stat().st_size > 10_000
    assert sorted(file.name for file in (run / "models").iterdir()) == ["final", "init", "start"]
    assert all(name in process.printed for name in ("random", "warm", "GRPO", "95 %", str(run)))
    wait_until(lambda: not marked(mark), 30, lambda: f"left behind: {marked(mark)}")
    assert haproxy_folders() <= before


def test_ctrl_c_ends_it_and_leaves_no_process(tmp_path: Path) -> None:
    mark = uuid.uuid4().hex
    process = quickstart(tmp_path, mark, "steps=100000")
    rows = "runs/default/tictactoe/*/metrics.jsonl"
    wait_until(lambda: any(file.stat().st_size for file in tmp_path.glob(rows)), 240, lambda: process.printed[-3000:])

    assert process.end(signal.SIGINT, deadline_s=90) == 130, process.printed[-3000:]

    process.wait_for("stopped by Ctrl-C", deadline_s=10)
    wait_until(lambda: not marked(mark), 30, lambda: f"left behind: {marked(mark)}")
