"""Tiny models and tokenizers made on the spot."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.training import EnvConfig, TinyModel
from training.imitation import tiny

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
