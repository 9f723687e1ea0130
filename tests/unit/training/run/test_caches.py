"""Where models and compiled kernels are kept while a run goes on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from configs.base import ConfigError
from configs.training import TrainConfig
from training.run import caches


def test_apart_is_below_the_run_and_ends_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("HF_HOME", "/mine")
    monkeypatch.delenv("VLLM_CACHE_ROOT", raising=False)

    with caches.caches_of(TrainConfig(cache="apart"), tmp_path):
        within = {name: os.environ[name] for name in caches.FOLDERS}

    assert all(Path(folder).is_relative_to(tmp_path) for folder in within.values())
    assert len(set(within.values())) == len(caches.FOLDERS)
    assert os.environ["HF_HOME"] == "/mine"
    assert "VLLM_CACHE_ROOT" not in os.environ


def test_shared_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "elsewhere:6379")
    before = dict(os.environ)
    with caches.caches_of(TrainConfig(), tmp_path):
        assert dict(os.environ) == before


def test_apart_is_refused_where_ray_runs_already(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "elsewhere:6379")
    with (
        pytest.raises(ConfigError, match=r"set HF_HOME, .* where it is started"),
        caches.caches_of(TrainConfig(cache="apart"), tmp_path),
    ):
        pass
