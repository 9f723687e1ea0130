"""A folder without whole weights is no model, whatever its name says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from configs.base import ConfigError
from deployments.storage import models
from deployments.storage.runs import RunFolder
from deployments.storage.tensors import INDEX, weight_bytes


def model_folder(path: Path) -> Path:
    path.mkdir(parents=True)
    (path / "config.json").write_text("{}")
    save_file({"weight": np.zeros((3, 4), np.float32)}, path / "model.safetensors")
    return path


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    run = RunFolder(tmp_path)
    model_folder(run.start_model)
    model_folder(run.final_model)
    return run


def test_a_whole_model_is_the_newest(run: RunFolder) -> None:
    assert models.newest(run) == run.final_model
    assert models.find(run.final_model) == run.final_model
    assert models.model_folder_error(str(run.final_model)) is None


def test_a_final_model_of_only_a_configuration_is_not_the_newest(run: RunFolder) -> None:
    """At a full disk config.json still finds room, the weights do not."""
    (run.final_model / "model.safetensors").unlink()

    assert models.newest(run) == run.start_model
    assert "holds no weights" in str(models.model_folder_error(str(run.final_model)))
    with pytest.raises(ConfigError, match="holds no weights"):
        models.find(run.final_model)


@pytest.mark.parametrize(
    ("left", "message"), [(-1, r"cut off: \d+ of \d+ bytes"), (5, "in its header"), (40, "header")]
)
def test_half_a_weight_file_is_no_model(run: RunFolder, left: int, message: str) -> None:
    file = run.final_model / "model.safetensors"
    file.write_bytes(file.read_bytes()[:left])

    assert models.newest(run) == run.start_model
    with pytest.raises(ConfigError, match=message):
        models.find(run.final_model)


def test_a_shard_that_the_index_names_must_be_there(run: RunFolder) -> None:
    (run.final_model / INDEX).write_text('{"weight_map": {"weight": "model.safetensors", "b": "model-2.safetensors"}}')

    with pytest.raises(ConfigError, match=r"model-2\.safetensors, which .* names, is missing"):
        models.find(run.final_model)


def test_a_run_whose_models_are_all_broken_says_what_is_wrong_with_them(run: RunFolder) -> None:
    for model in (run.final_model, run.start_model):
        (model / "model.safetensors").unlink()

    with pytest.raises(ConfigError, match=r"has no model yet .*final.*holds no weights.*start.*rayward train --resume"):
        models.find(run.path)


def test_the_bytes_of_a_version_follow_from_the_headers(run: RunFolder) -> None:
    assert weight_bytes(run.final_model, "float32") == 12 * 4
    assert weight_bytes(run.final_model, "bfloat16") == 12 * 2
    assert weight_bytes(Path("Qwen/Qwen2-0.5B"), "float32") == 0


def test_a_model_of_the_hub_is_shown_by_its_name_and_not_by_its_revision() -> None:
    cached = Path("/cache/hub/models--Qwen--Qwen2.5-0.5B-Instruct/snapshots/7ae557604adf67be50417f59c2c2f167def9a775")
    assert list(models.labels([cached])) == ["Qwen2.5-0.5B-Instruct"]
    assert list(models.labels([Path("/runs/a/models/final"), cached])) == ["A final", "B Qwen2.5-0.5B-Instruct"]
