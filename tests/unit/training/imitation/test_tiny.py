"""Tiny models and tokenizers made on the spot."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from configs.models import TinyModel
from configs.rollouts import EnvConfig
from envs import registry
from training.imitation import tiny
from training.rendering.conversation import Conversation
from training.rendering.renderer import ChatRenderer

MODEL = TinyModel(hidden_size=64, heads=2, kv_heads=1, intermediate_size=64, max_positions=64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build(MODEL, EnvConfig(name="tictactoe"), 3, tmp_path_factory.mktemp("tiny"))


def test_the_same_seed_gives_the_same_files(folder: Path, tmp_path: Path) -> None:
    again = tiny.build(MODEL, EnvConfig(name="tictactoe"), 3, tmp_path)
    names = sorted(path.name for path in folder.iterdir())
    assert names == sorted(path.name for path in again.iterdir())
    assert all((folder / name).read_bytes() == (again / name).read_bytes() for name in names)


def test_another_seed_gives_other_weights_and_the_same_tokenizer(folder: Path, tmp_path: Path) -> None:
    other = tiny.build(MODEL, EnvConfig(name="tictactoe"), 4, tmp_path)
    assert (folder / "tokenizer.json").read_bytes() == (other / "tokenizer.json").read_bytes()
    assert (folder / "model.safetensors").read_bytes() != (other / "model.safetensors").read_bytes()


def test_any_text_survives_the_tokenizer(folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    for text in ("<play>4</play>", "X plays (1, 2)", "ß 漢字 🙂\n\t\x00"):
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_what_an_environment_varies_as_a_whole_is_one_token(folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    words = set(tiny.WHOLE_PIECES.findall("\n".join(tiny.environment_texts(EnvConfig(name="tictactoe")))))
    assert 0 < len(words) <= tiny.MOST_WHOLE_PIECES
    assert all(len(tokenizer.encode(word, add_special_tokens=False)) == 1 for word in words)


def test_the_template_shows_tools_and_their_calls_are_short(tmp_path: Path) -> None:
    env = EnvConfig(name="bfcl", kwargs={"data": "generated"}, system_prompt="")
    renderer = ChatRenderer.load(str(tiny.build(MODEL, env, 3, tmp_path)))
    game = registry.make("bfcl", data="generated")
    chat = Conversation(env, game.spec, renderer)
    text = renderer.tokenizer.decode(list(chat.start(game.reset(1))))
    assert text.startswith('<|system|>{"name": "check_camera", "description": "check the camera"')
    assert text.endswith("<|user|>Please check the camera: user Ann.<|assistant|>")
    assert len(renderer.answer(game.expert_action(random.Random(0)))) < 40
