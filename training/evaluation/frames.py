"""Pictures of an episode: in the terminal as coloured half blocks, and as a GIF."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]  # [height, width, 3]
FRAME_MS = 500
SMALLEST = 224  # pixels: smaller pictures of a GIF are enlarged by whole times


def half_blocks(picture: Picture, columns: int = 56) -> str:
    """Lines of «▀» in 24-bit colours (ANSI): each character is two pixels, one above the other. A picture that is wider
    than `columns` is made smaller by leaving out pixels."""
    step = -(-picture.shape[1] // columns)
    shown = picture[::step, ::step]
    if len(shown) % 2:
        shown = np.concatenate([shown, shown[-1:]])
    lines = []
    for upper, lower in zip(shown[::2], shown[1::2], strict=True):
        cells = (
            f"\x1b[38;2;{u[0]};{u[1]};{u[2]}m\x1b[48;2;{w[0]};{w[1]};{w[2]}m▀"
            for u, w in zip(upper.tolist(), lower.tolist(), strict=True)
        )
        lines.append("".join(cells) + "\x1b[0m")
    return "\n".join(lines)


def save_gif(frames: Sequence[Picture], path: Path, frame_ms: int = FRAME_MS) -> None:
    """An endless GIF; the last picture stays four times as long."""
    from PIL import Image

    times = max(1, SMALLEST // max(frames[0].shape[:2]))
    images = [Image.fromarray(frame.repeat(times, axis=0).repeat(times, axis=1)) for frame in frames]
    path.parent.mkdir(parents=True, exist_ok=True)
    durations = [frame_ms] * (len(images) - 1) + [4 * frame_ms]
    images[0].save(path, format="GIF", save_all=True, append_images=images[1:], duration=durations, loop=0)
