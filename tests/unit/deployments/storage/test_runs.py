"""Run folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.base import ConfigError
from configs.training import TrainConfig
from deployments.storage import runs


def test_a_run_is_found_by_folder_and_by_id(tmp_path: Path) -> None:
    run = runs.create(TrainConfig.parse({"storage_path": str(tmp_path)}))
    assert runs.find(str(run.path)) == run
    assert runs.find(run.path.name, str(tmp_path)) == run
    assert run.load_config().storage_path == str(tmp_path)
    with pytest.raises(ConfigError, match="no run 'nothing'"):
        runs.find("nothing", str(tmp_path))


def test_a_storage_path_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ConfigError, match="Set storage_path elsewhere"):
        runs.create(TrainConfig.parse({"storage_path": str(file)}))
