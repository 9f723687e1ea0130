"""A store in a folder, and one behind a URI."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployments.weights.store import WeightStore


@pytest.fixture(params=["folder", "uri"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> WeightStore:
    root = tmp_path / "store"
    if request.param == "folder":
        return WeightStore(str(root), keep=2)
    root.mkdir()
    return WeightStore(f"file://{root}", keep=2)
