"""A manifest that is not what was written is corrupt."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deployments.weights.manifest import WeightsCorrupt
from deployments.weights.store import WeightStore
from tests.unit.deployments.weights.cases import pairs


def test_a_manifest_that_was_changed_or_cut_is_found(tmp_path: Path) -> None:
    WeightStore(str(tmp_path)).publish(1, pairs())
    path = tmp_path / "1" / "manifest.json"
    document = json.loads(path.read_text())
    document["tensors"][0]["shape"] = [5, 4]
    for text in (json.dumps(document), path.read_text()[:-9], path.read_text().replace('"version": 1', '"version": 2')):
        path.write_text(text)
        with pytest.raises(WeightsCorrupt):
            WeightStore(str(tmp_path)).fetch(1)
