"""What stands in `.env` reaches the processes of a command, and neither its output, its run folder nor its jobs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from configs.training import TrainConfig
from deployments import app as serving
from deployments.storage import runs
from training.cluster import application
from training.commands import app

SECRETS = {"WANDB_API_KEY": "wandb-5ecret", "HF_TOKEN": "hf-5ecret", "OPENAI_API_KEY": "openai-5ecret"}
MARK = "5ecret"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder with a `.env`; the variables are as before at the end."""
    (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in SECRETS.items()) + "EXPERIMENTER=ada")
    monkeypatch.chdir(tmp_path)
    for name in (*SECRETS, "EXPERIMENTER", "EXPERIMENT_NAME"):
        monkeypatch.setenv(name, "")  # so that the end of the test undoes what the command sets
        monkeypatch.delenv(name)
    return tmp_path


def test_the_output_of_a_command_has_the_names_and_no_values(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert app.run(["train", "--env", "wordle", "--dry-run"]) == 0

    said = capfd.readouterr()
    assert "from .env: EXPERIMENTER, HF_TOKEN, OPENAI_API_KEY, WANDB_API_KEY" in said.err
    assert "experimenter: ada" in said.out
    assert MARK not in said.out + said.err
    assert {name: os.environ[name] for name in SECRETS} == SECRETS


def test_an_error_shows_no_values_with_its_traceback_either(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert app.run(["train", "--env", "wordle", "--dry-run", "--debug", "--set", "stepps=1"]) == 1

    said = capfd.readouterr()
    assert "Traceback" in said.err
    assert MARK not in said.out + said.err


def test_what_is_written_and_sent_holds_no_values(folder: Path) -> None:
    import pickle

    assert app.run(["envs"]) == 0  # any command reads the file
    assert os.environ["HF_TOKEN"] == SECRETS["HF_TOKEN"]
    config = TrainConfig.load("configs/train/tictactoe_tiny.yaml", [f"storage_path={folder}"])

    run = runs.create(config)
    written = [file for file in run.path.rglob("*") if file.is_file()]
    bound = serving.bind(application.serve_config(config, "owner/model", None))
    replica = bound._bound_deployment.init_kwargs["policy_0"]._bound_deployment
    sent = pickle.dumps((replica.ray_actor_options, replica.init_args, config))

    assert written
    assert not [file for file in written if MARK.encode() in file.read_bytes()]
    assert MARK.encode() not in sent
