"""A tiny policy folder, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.training import EnvConfig, TinyModel


@pytest.fixture(scope="session")
def policy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from training.imitation import tiny

    model = TinyModel(hidden_size=64, heads=2, kv_heads=1, intermediate_size=64, max_positions=256)
    return tiny.build(model, EnvConfig(name="tictactoe", system_prompt=""), 0, tmp_path_factory.mktemp("policy"))
