"""Libraries that talk about themselves leave the console to the command that runs."""

from __future__ import annotations

import os

import pytest

from training.cluster.quiet import SETTINGS, quiet_libraries


def test_what_a_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "DEBUG")

    quiet_libraries()

    assert os.environ["VLLM_LOGGING_LEVEL"] == "DEBUG"
    assert {name: os.environ[name] for name in SETTINGS if name != "VLLM_LOGGING_LEVEL"} == {
        name: value for name, value in SETTINGS.items() if name != "VLLM_LOGGING_LEVEL"
    }
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
