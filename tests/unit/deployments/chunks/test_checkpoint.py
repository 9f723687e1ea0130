from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from configs.base import ConfigError
from deployments.chunks.checkpoint import WEIGHTS, load, save, tiny_checkpoint, untrained
from deployments.chunks.description import TRAIN_CONFIG


def rewritten(folder: Path, change: str) -> Path:
    """The tiny checkpoint with one thing wrong."""
    tiny_checkpoint(folder)
    tensors = load_file(folder / WEIGHTS)
    if change == "missing":
        del tensors["state.weight"]
    elif change == "unknown":
        tensors["other"] = torch.zeros(1)
    elif change == "shape":
        tensors["state.weight"] = tensors["state.weight"][:, :5].contiguous()
    elif change == "nan":
        tensors["state.weight"][0, 0] = float("nan")
    save_file(tensors, folder / WEIGHTS)
    if change == "cut":
        data = (folder / WEIGHTS).read_bytes()
        (folder / WEIGHTS).write_bytes(data[: len(data) // 2])
    if change == "no weights":
        (folder / WEIGHTS).unlink()
    return folder


def test_what_was_saved_is_loaded_bit_for_bit(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path / "tiny", seed=3)
    loaded = load(folder)
    expected = untrained(loaded.description, seed=3).state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in loaded.state_dict().items())


def test_the_same_seed_makes_the_same_checkpoint_and_another_another(tmp_path: Path) -> None:
    first, again, other = (tiny_checkpoint(tmp_path / str(i), seed) / WEIGHTS for i, seed in enumerate((0, 0, 1)))
    assert first.read_bytes() == again.read_bytes()
    assert first.read_bytes() != other.read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("missing", "1 tensor.* missing, the first is state.weight"),
        ("unknown", "unknown to this model, the first is other"),
        ("shape", r"state.weight has shape \[32, 5\], expected \[32, 32\]"),
        ("nan", "state.weight holds values that are not finite"),
        ("cut", "no whole safetensors file"),
        ("no weights", "has no model.safetensors"),
    ],
)
def test_a_checkpoint_that_cannot_be_used_says_why(tmp_path: Path, change: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(rewritten(tmp_path / "bad", change))


def test_a_checkpoint_replaces_one_and_nothing_else(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path / "tiny", seed=0)
    tiny_checkpoint(folder, seed=1)
    assert torch.equal(load(folder).state.weight, untrained(load(folder).description, seed=1).state.weight)
    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="is no model folder"):
        tiny_checkpoint(notes)
    assert (notes / "thesis.txt").read_text() == "years of work"


def test_a_writer_that_is_stopped_leaves_the_former_checkpoint(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path / "tiny")
    before = (folder / WEIGHTS).read_bytes()
    with pytest.raises(AttributeError):
        save(folder, load(folder).description, {"state.weight": None})  # type: ignore[dict-item]
    assert (folder / WEIGHTS).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


def test_the_description_is_the_one_that_was_asked_for(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path / "tiny", action_dim=3, chunk_len=5, num_cams=1)
    told = json.loads((folder / TRAIN_CONFIG).read_text())
    assert (told["action_dim"], told["chunk_len"], told["num_cams"]) == (3, 5, 1)
    assert len(told["statistics"]["default"]["action"]["mean"]) == 3
