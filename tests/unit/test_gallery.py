"""The gallery is what the environments show today."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from docs.gallery import PAGE, PICTURES, page, picture
from envs import registry


def test_the_page_is_what_the_environments_say() -> None:
    assert PAGE.read_text() == page(), "run `python -m docs.gallery`"


@pytest.mark.parametrize("name", registry.names())
def test_each_picture_is_what_the_environment_draws(name: str) -> None:
    drawn, file = picture(name), PICTURES / f"{name}.png"
    assert file.exists() == (drawn is not None)
    if drawn is not None:
        kept = np.asarray(Image.open(file))
        assert kept.shape == drawn.shape
        # a simulator's last digits, and so a pixel at an edge, may differ between processors
        assert np.abs(kept.astype(int) - drawn).mean() < 1, "run `python -m docs.gallery`"
