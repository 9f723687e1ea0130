"""Pictures of an episode."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from rich.text import Text

from training.evaluation.frames import half_blocks, save_gif


def test_a_character_is_two_pixels_one_above_the_other() -> None:
    picture = np.array([[[255, 0, 0], [0, 0, 0]], [[0, 0, 255], [9, 8, 7]]], np.uint8)
    assert half_blocks(picture) == ("\x1b[38;2;255;0;0m\x1b[48;2;0;0;255m▀\x1b[38;2;0;0;0m\x1b[48;2;9;8;7m▀\x1b[0m")


def test_a_wide_picture_keeps_its_form_within_the_columns() -> None:
    lines = Text.from_ansi(half_blocks(np.zeros((100, 200, 3), np.uint8), columns=50)).plain.split("\n")
    assert {len(line) for line in lines} == {50}
    assert len(lines) == 13  # 25 rows of pixels, two to a line


def test_a_gif_shows_every_turn_and_small_pictures_are_enlarged(tmp_path: Path) -> None:
    frames = [np.full((56, 56, 3), value, np.uint8) for value in (0, 100, 200)]
    save_gif(frames, tmp_path / "new" / "episode.gif")
    film = Image.open(tmp_path / "new" / "episode.gif")
    assert (film.n_frames, film.size) == (3, (224, 224))
    for index, value in enumerate((0, 100, 200)):
        film.seek(index)
        assert film.convert("RGB").getpixel((5, 5)) == (value, value, value)
