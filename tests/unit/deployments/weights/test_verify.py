"""Every byte of a version is checked, and what is wrong is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployments.weights.manifest import WeightsCorrupt
from deployments.weights.store import WeightStore
from tests.unit.deployments.weights.cases import pairs


def test_any_flipped_byte_is_found(tmp_path: Path) -> None:
    store = WeightStore(str(tmp_path))
    manifest = store.publish(1, pairs())
    path = tmp_path / "1" / manifest.shards[0].name
    whole = path.read_bytes()
    header_bytes = manifest.shards[0].header_bytes
    for position in (0, 9, 60, header_bytes - 1, header_bytes, len(whole) - 1):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        with pytest.raises(WeightsCorrupt, match=r"model-00001\.safetensors"):
            WeightStore(str(tmp_path)).fetch(1)
    path.write_bytes(whole[:-1])
    with pytest.raises(WeightsCorrupt, match="bytes instead of"):
        WeightStore(str(tmp_path)).fetch(1)
    path.write_bytes(whole)
    WeightStore(str(tmp_path)).fetch(1)


def test_a_corrupt_tensor_is_named(tmp_path: Path) -> None:
    store = WeightStore(str(tmp_path))
    manifest = store.publish(1, pairs())
    path = tmp_path / "1" / manifest.shards[0].name
    whole = bytearray(path.read_bytes())
    whole[-1] ^= 1
    path.write_bytes(whole)
    with pytest.raises(WeightsCorrupt, match=r"layers\.2\.weight.*publish version 1 again"):
        store.fetch(1)
