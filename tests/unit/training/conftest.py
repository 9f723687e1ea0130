"""A tiny policy folder, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.models import TinyModel, TinyVision
from configs.rollouts import EnvConfig


@pytest.fixture(scope="session")
def policy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from training.imitation import tiny

    model = TinyModel(hidden_size=64, heads=2, kv_heads=1, intermediate_size=64, max_positions=256)
    return tiny.build(model, EnvConfig(name="tictactoe", system_prompt=""), 0, tmp_path_factory.mktemp("policy"))


@pytest.fixture(scope="session")
def vision_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Qwen2-VL whose image tokens are the cells of a grid of 14 pixels."""
    from training.imitation import tiny

    model = TinyModel(
        hidden_size=64, heads=2, kv_heads=1, intermediate_size=64, max_positions=256, vision=TinyVision(depth=1)
    )
    env = EnvConfig(name="key_door_pixels", kwargs={"size": 2}, system_prompt="")
    return tiny.build(model, env, 0, tmp_path_factory.mktemp("vision"))
