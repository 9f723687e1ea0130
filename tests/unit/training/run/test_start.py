"""The policy that a run starts from is made in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from configs.base import ConfigError
from configs.training import TrainConfig
from deployments.storage import models, runs
from training.run.start import start_model

ROOT = Path(__file__).resolve().parents[4]
PROGRAM = """
import sys
from configs.training import TrainConfig
from deployments.storage import runs
from training.run.start import start_model

if __name__ == "__main__":
    config = TrainConfig.parse({"storage_path": sys.argv[1], "env": {"system_prompt": ""}})
    print("model", start_model(config, runs.create(config)))
    print("torch" if "torch" in sys.modules else "no torch")
"""


def test_a_tiny_model_is_built_without_pytorch_in_the_process_of_the_command(tmp_path: Path) -> None:
    """The command kept half a gibibyte of it to the end of the run."""
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)

    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)],
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == "no torch"
    built = next(line for line in lines if line.startswith("model ")).removeprefix("model ")
    assert models.folder_problem(Path(built)) is None


def test_a_model_that_is_given_is_taken_as_it_is(policy_folder: Path, tmp_path: Path) -> None:
    config = TrainConfig.parse({"model": {"source": str(policy_folder)}, "serving": {"engine": {"max_model_len": 256}}})

    assert start_model(config, runs.RunFolder(tmp_path)) == policy_folder
    with pytest.raises(ConfigError, match=r"model\.source: model folder '/no/such' does not exist"):
        start_model(TrainConfig.parse({"model": {"source": "/no/such"}}), runs.RunFolder(tmp_path))
