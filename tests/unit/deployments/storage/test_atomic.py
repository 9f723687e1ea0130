"""What is read back by name is there whole or not at all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from configs.base import ConfigError
from deployments.storage import atomic

ROOT = Path(__file__).resolve().parents[4]


def model(folder: Path, text: str, then: Exception | None = None) -> None:
    with atomic.written_whole(folder) as staged:
        (staged / "config.json").write_text(text)
        if then is not None:
            raise then


def test_a_folder_appears_when_it_is_whole_and_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "final"
    with atomic.written_whole(folder) as staged:
        (staged / "config.json").write_text("1")
        assert not folder.exists()
    model(folder, "2")

    assert (folder / "config.json").read_text() == "2"
    assert list(folder.parent.iterdir()) == [folder]


def test_an_error_in_the_midst_of_writing_leaves_the_old_folder_and_no_other(tmp_path: Path) -> None:
    folder = tmp_path / "final"
    model(folder, "1")

    with pytest.raises(OSError, match="disk is full"):
        model(folder, "2", then=OSError("disk is full"))

    assert (folder / "config.json").read_text() == "1"
    assert list(tmp_path.iterdir()) == [folder]


def test_a_killed_writer_leaves_no_folder_and_the_next_one_clears_up(tmp_path: Path) -> None:
    folder = tmp_path / "final"
    program = (
        "import os, sys; from pathlib import Path; from deployments.storage.atomic import written_whole\n"
        "with written_whole(Path(sys.argv[1])) as staged:\n"
        "    (staged / 'config.json').write_text('half')\n"
        "    os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", program, str(folder)], cwd=ROOT, check=False).returncode == -9
    assert not folder.exists()

    model(folder, "whole")

    assert list(tmp_path.iterdir()) == [folder]


def test_a_folder_that_holds_something_else_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    precious = tmp_path / "thesis"
    (precious / "chapters").mkdir(parents=True)
    (precious / "config.json").write_text("{}")

    with pytest.raises(ConfigError, match="is no model folder"):
        model(precious, "2")

    assert (precious / "config.json").read_text() == "{}"


def test_a_text_is_replaced_whole(tmp_path: Path) -> None:
    file = tmp_path / "best.yaml"
    atomic.write_text(file, "steps: 1")
    with pytest.raises(UnicodeEncodeError):
        atomic.write_text(file, "steps: \ud800")

    assert file.read_text() == "steps: 1"
    assert list(tmp_path.iterdir()) == [file]
