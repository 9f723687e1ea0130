"""`python -m training.bc`, as a user types it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[4]
QUICK = (
    "table.side=16", "model.width=16", "model.heads=2", "demonstrations.episodes=4", "training.steps=2",
    "training.batch_size=4", "evaluation.episodes=2", "evaluation.flow_steps=2", "chunk_len=8",
)  # fmt: skip


def bc(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "training.bc", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=200,
    )


def test_it_trains_a_policy_tells_its_success_and_leaves_a_checkpoint(tmp_path: Path) -> None:
    output = tmp_path / "reach"
    sets = [part for setting in (*QUICK, f"output={output}") for part in ("--set", setting)]

    done = bc("--config", "configs/bc/reach_tiny.yaml", *sets)

    assert done.returncode == 0, done.stderr
    assert "success on 2 held-out tables" in done.stdout
    assert sorted(path.name for path in output.iterdir()) == [
        "evaluation.json",
        "model.safetensors",
        "train_config.json",
    ]
    assert set(json.loads((output / "evaluation.json").read_text())) == {"untrained", "trained", "loss"}


def test_a_configuration_that_does_not_exist_is_told_without_a_traceback() -> None:
    done = bc("--config", "configs/bc/reach_tini.yaml")
    assert done.returncode == 1
    assert "Did you mean configs/bc/reach_tiny.yaml" in done.stderr
    assert "Traceback" not in done.stderr
