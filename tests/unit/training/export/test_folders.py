"""An export appears as a whole, in a folder where nothing was."""

from pathlib import Path

import pytest

from configs.base import ConfigError
from training.export.folders import new_folder


def test_an_interrupted_export_leaves_nothing(tmp_path: Path) -> None:
    def interrupted() -> None:
        with new_folder(tmp_path / "set") as staged:
            (staged / "half.txt").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_what_lies_there_already_is_never_replaced(tmp_path: Path) -> None:
    """Not even what looks like a model of ours, which other writers replace."""
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="exists and is not empty"), new_folder(tmp_path):
        pass
    assert (tmp_path / "config.json").read_text() == "{}"
