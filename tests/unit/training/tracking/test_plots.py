"""The learning curve."""

from __future__ import annotations

import json
from pathlib import Path

from matplotlib import image

from training.tracking.intervals import proportion
from training.tracking.plots import learning_curve


def metrics(folder: Path, success: list[float]) -> Path:
    file = folder / "metrics.jsonl"
    rows = [{"step": step, "rollout/success": value} for step, value in enumerate(success)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def shows(png: Path, colour: tuple[int, int, int], tolerance: int = 40) -> bool:
    """Whether a pixel is nearly of this colour: thin lines are blended with the background."""
    pixels = image.imread(png)[..., :3] * 255
    return bool((abs(pixels - colour).max(axis=-1) < tolerance).any())


def test_the_curve_and_each_evaluation_are_drawn_in_colours_of_their_own(tmp_path: Path) -> None:
    file = metrics(tmp_path, [0.1, 0.4, 0.6, 0.9])
    blue, orange = (8, 81, 156), (230, 85, 13)
    plain, marked = tmp_path / "plain.png", tmp_path / "marked.png"

    learning_curve(file, plain, "game", {})
    learning_curve(file, marked, "game", {"start": proportion(10, 100), "trained": proportion(90, 100)})

    assert shows(plain, blue)
    assert not shows(plain, orange)
    assert shows(marked, orange)
    band = (252, 235, 226)  # 12 % orange on white: the interval
    assert shows(marked, band, tolerance=4)
    assert not shows(plain, band, tolerance=4)


def test_a_run_of_one_step_has_a_curve(tmp_path: Path) -> None:
    learning_curve(metrics(tmp_path, [0.5]), tmp_path / "curve.png", "game", {})
    assert (tmp_path / "curve.png").exists()
