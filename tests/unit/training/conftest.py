"""Tiny policies and tokenizers, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.models import TinyModel, TinyVision
from configs.rollouts import EnvConfig
from tests.unit.training.chat_tokenizers import FAMILIES, make_tokenizer
from training.rendering.renderer import ChatRenderer


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


@pytest.fixture(scope="session")
def chat_folders(policy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tokenizer folder for each family."""
    folders = {family: tmp_path_factory.mktemp(family) for family in FAMILIES[1:]}
    for family, folder in folders.items():
        make_tokenizer(family, folder)
    return {"tiny": policy_folder, **folders}


@pytest.fixture(scope="session")
def renderer(policy_folder: Path) -> ChatRenderer:
    return ChatRenderer.load(str(policy_folder))
