"""What a weight version says of itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load

from configs.base import UserError
from deployments.weights import manifest
from deployments.weights.manifest import FileEntry, Manifest, TensorEntry, WeightsCorrupt, encode_header, read_manifest
from deployments.weights.store import WeightStore
from tests.unit.deployments.weights.cases import pairs

ENTRIES = (
    TensorEntry("a", "float32", (2, 2), "model-00001.safetensors", 0, 16, "00"),
    TensorEntry("b", "bfloat16", (3,), "model-00001.safetensors", 16, 22, "01"),
)
VERSION = Manifest(
    3, "full", ENTRIES, (FileEntry("model-00001.safetensors", 278, None, 256),), (FileEntry("config.json", 2, "0"),), 9
)


def test_a_manifest_read_again_is_equal(tmp_path: Path) -> None:
    (tmp_path / manifest.MANIFEST).write_text(VERSION.to_json())
    assert read_manifest(tmp_path) == VERSION
    assert VERSION.total_bytes == 22


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", VERSION.to_json().replace("version", "v"), VERSION.to_json()[:-9]]
)
def test_what_is_no_manifest_is_corrupt_and_its_file_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / manifest.MANIFEST).write_text(text)
    with pytest.raises(WeightsCorrupt, match=r"manifest\.json is no weight manifest .*publish the version again"):
        read_manifest(tmp_path)


def test_a_header_is_one_that_safetensors_reads() -> None:
    header = encode_header(ENTRIES, 256)
    numbers = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    tensors = load(header + numbers.numpy().tobytes() + bytes(6))
    assert len(header) == 256
    assert torch.equal(tensors["a"], numbers)
    assert (tensors["b"].dtype, tensors["b"].shape) == (torch.bfloat16, (3,))


def test_a_header_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit in 64"):
        encode_header(ENTRIES, 64)


def test_only_what_asking_again_may_mend_is_retryable() -> None:
    retryable = {manifest.WeightsMissing, manifest.WeightsTimeout}
    for kind in (
        manifest.WeightsMissing,
        manifest.WeightsTimeout,
        WeightsCorrupt,
        manifest.VersionOrder,
        manifest.NoRoom,
    ):
        assert issubclass(kind, UserError)
        assert kind.retryable == (kind in retryable)


def test_a_manifest_that_was_changed_or_cut_is_found(tmp_path: Path) -> None:
    WeightStore(str(tmp_path)).publish(1, pairs())
    path = tmp_path / "1" / "manifest.json"
    document = json.loads(path.read_text())
    document["tensors"][0]["shape"] = [5, 4]
    for text in (json.dumps(document), path.read_text()[:-9], path.read_text().replace('"version": 1', '"version": 2')):
        path.write_text(text)
        with pytest.raises(WeightsCorrupt):
            WeightStore(str(tmp_path)).fetch(1)
