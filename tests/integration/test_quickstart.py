"""The first command of a newcomer, shortened: what it leaves behind when it is done, and when it is stopped."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.integration.conftest import ROOT, TINY
from tests.integration.processes import MARK, Process, marked, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(660)]

SHORT = (
    "model.tiny.intermediate_size=128",
    "warmstart.episodes=64",
    "warmstart.steps=4",
    "rollout.groups_per_step=4",
    "evaluation.episodes=8",
)


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A folder for temporary files: that of the machine has those of other tests. Short, for it holds Unix sockets,
    one of them below a folder that is named by 56 characters."""
    folder = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def quickstart(storage: Path, temporary: Path, mark: str, *overrides: str) -> Process:
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "PYTEST_"))}
    env = {**ours, MARK: mark, "PYTHONPATH": str(ROOT), "TMPDIR": str(temporary)}
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


def grpo(storage: Path, mark: str, *options: str, **more: str) -> Process:
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("RAY", "PYTEST_"))}
    env = {**ours, **more, MARK: mark, "PYTHONPATH": str(ROOT)}
    return Process([sys.executable, "-m", "training.grpo", *options], env, ROOT)


def leftovers(temporary: Path) -> list[Path]:
    """What a command may have left in the temporary folder: its own folders, and sockets of HAProxy and vLLM."""
    return [path for path in temporary.iterdir() if path.name.startswith("rayward-") or path.is_socket()]


def test_it_shows_three_policies_a_picture_and_what_to_try_next(tmp_path: Path, temporary: Path) -> None:
    mark = uuid.uuid4().hex
    with quickstart(tmp_path, temporary, mark, "steps=2") as process:
        assert process.popen.wait(300) == 0, process.printed[-3000:]
        process.wait_for("Try next:", deadline_s=10)

    (run,) = (tmp_path / "runs" / "default" / "tictactoe").iterdir()
    assert (run / "learning_curve.png").stat().st_size > 10_000
    assert sorted(file.name for file in (run / "models").iterdir()) == ["final", "init", "start"]
    assert all(name in process.printed for name in ("random", "warm", "GRPO", "95 %", str(run)))
    wait_until(lambda: not marked(mark), 30, lambda: f"left behind: {marked(mark)}")
    assert [path.name for path in temporary.iterdir()], "it put nothing there: the next line says nothing"
    assert leftovers(temporary) == []


def test_a_killed_run_leaves_no_process_and_is_resumed_until_ctrl_c(tmp_path: Path, temporary: Path) -> None:
    """The driver dies by SIGKILL: training must not go on without it, and nothing of it may be in the way of a resume.
    On this machine somebody else's Ray has died, too, and left the file with its address."""
    mark, own = uuid.uuid4().hex, {"RAY_TMPDIR": str(temporary)}
    address = temporary / "ray" / "ray_current_cluster"
    address.parent.mkdir()
    address.write_text("127.0.0.1:1")
    settings = [f"storage_path={tmp_path}", "env.name=tictactoe", "steps=100000"]
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(TINY))
    options = ["--config", str(tmp_path / "train.yaml"), *(f"--set={setting}" for setting in settings)]
    checkpoints = "runs/default/default/*/checkpoints/step-*"
    with grpo(tmp_path, mark, *options, **own) as process:
        wait_until(lambda: len(list(tmp_path.glob(checkpoints))) > 1, 240, lambda: process.printed[-3000:])

        process.end(signal.SIGKILL, deadline_s=10)

    wait_until(lambda: not marked(mark), 30, lambda: f"left behind: {marked(mark)}")
    (run,) = (tmp_path / "runs" / "default" / "default").iterdir()
    done = max(int(checkpoint.name.partition("-")[2]) for checkpoint in (run / "checkpoints").glob("step-*"))
    with grpo(tmp_path, mark, "--resume", str(run), **own) as resumed:
        wait_until(lambda: max(steps(run), default=0) > done, 300, lambda: resumed.printed[-3000:])
        assert resumed.end(signal.SIGINT, deadline_s=20) == 130, resumed.printed[-3000:]
    assert steps(run) == list(range(len(steps(run)))), "a step is missing, or there twice"
    wait_until(lambda: not marked(mark), 30, lambda: f"left behind: {marked(mark)}")


def steps(run: Path) -> list[int]:
    """Of the whole lines in metrics.jsonl: another process writes it."""
    lines = (run / "metrics.jsonl").read_text().split("\n")[:-1]
    return [json.loads(line)["step"] for line in lines]
