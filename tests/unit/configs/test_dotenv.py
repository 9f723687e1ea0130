"""The variables of `.env` reach the environment, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.base import ConfigError
from configs.dotenv import load_variables, run_names


def test_variables_of_the_file_are_set_and_named(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("# keys\nexport HF_TOKEN='a b'\nWANDB_API_KEY=w # mine\nOPENAI_API_KEY=\n")
    environment: dict[str, str] = {}

    assert load_variables(tmp_path, environment) == ["HF_TOKEN", "WANDB_API_KEY"]
    assert environment == {"HF_TOKEN": "a b", "WANDB_API_KEY": "w"}  # one without a value is left out


def test_a_variable_that_is_set_stays(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("HF_TOKEN=file\nEMPTY=file\n")
    environment = {"HF_TOKEN": "shell", "EMPTY": ""}

    assert load_variables(tmp_path, environment) == []
    assert environment == {"HF_TOKEN": "shell", "EMPTY": ""}


def test_without_a_file_nothing_happens(tmp_path: Path) -> None:
    assert load_variables(tmp_path, {}) == []


def test_a_file_of_a_folder_above_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("HF_TOKEN=file\n")
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    assert load_variables(environment={}) == []


def test_a_file_that_is_no_text_is_told_without_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"HF_TOKEN=secret\xff\n")
    with pytest.raises(ConfigError, match=r"\.env cannot be read: UnicodeDecodeError") as raised:
        load_variables(tmp_path, {})
    assert "secret" not in str(raised.value)
    assert raised.value.__suppress_context__  # --debug would show the bytes


def test_who_experiments_is_read_from_the_environment() -> None:
    assert run_names({"EXPERIMENTER": "ada", "EXPERIMENT_NAME": "x"}) == {"experimenter": "ada", "experiment": "x"}
    assert run_names({}) == {}
