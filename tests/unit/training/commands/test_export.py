"""`rayward export`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from training.commands import app


def test_the_command_writes_a_robots_demonstrations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = ("--set", "demonstrations.episodes=2", "--set", "table.side=16")
    command = ["export", "--config", "configs/bc/reach_tiny.yaml", *few]
    assert app.run([*command, "--output", str(tmp_path / "set")]) == 0
    assert capsys.readouterr().out.startswith("2 episodes, ")
    assert json.loads((tmp_path / "set" / "meta" / "info.json").read_text())["robot_type"] == "rayward_reach"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ([], "name a run with --run, or a robot's configuration"),
        (["--run", "a", "--config", "b"], "one of the two"),
        (["--config", "configs/bc/reach_tiny.yaml", "--success-only"], "--success-only chooses among a run's episodes"),
        (["--run", "a", "--set", "seed=1"], "--set changes a robot's configuration"),
    ],
)
def test_options_that_say_nothing_together_are_refused(
    options: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.run(["export", *options, "--output", str(tmp_path / "set")]) == 1
    assert told in " ".join(capsys.readouterr().err.split())
