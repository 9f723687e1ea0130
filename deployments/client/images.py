"""Frames of a robot's cameras, made small before they are sent: resized, and compressed as JPEG."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deployments.errors import PolicyError
from deployments.protocol.act import Frame

LOWEST_QUALITY = 10


@dataclass(frozen=True, slots=True)
class Compression:
    """How a frame is sent: shrunk until its longest side has `longest_side` pixels (policies look at 224 or so), then
    as JPEG of `quality` (1 to 95), or of less where it would take more than `max_bytes`. Two frames of 480x640 take
    1.8 MB as they are, and less than 60 kB as they are sent."""

    longest_side: int = 256
    quality: int = 85
    max_bytes: int = 28_000

    def jpeg(self, frame: NDArray[np.generic]) -> bytes:
        """`frame` [H, W, 3], RGB, uint8. Raises PolicyError for anything else."""
        image = Image.fromarray(np.ascontiguousarray(_checked(frame)))
        largest = max(image.size)
        if largest > self.longest_side:
            width, height = (max(1, round(side * self.longest_side / largest)) for side in image.size)
            image = image.resize((width, height), Image.Resampling.BILINEAR)
        quality = self.quality
        while len(data := _as_jpeg(image, quality)) > self.max_bytes and quality > LOWEST_QUALITY:
            quality = max(LOWEST_QUALITY, quality - 15)
        return data

    def base64(self, frame: NDArray[np.generic]) -> str:
        return base64.b64encode(self.jpeg(frame)).decode()


def png(frame: NDArray[np.generic]) -> bytes:
    """`frame` [H, W, 3], RGB, uint8, without loss. Raises PolicyError."""
    data = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(_checked(frame))).save(data, "PNG")
    return data.getvalue()


def exact(frame: NDArray[np.generic]) -> dict[str, Any]:
    """`frame` [H, W, 3], RGB, uint8, as the json_numpy package writes it: nothing is lost, and 256 x 256 pixels take
    262 kB. Raises PolicyError."""
    data = np.ascontiguousarray(_checked(frame))
    return {"__numpy__": base64.b64encode(data.tobytes()).decode(), "dtype": "|u1", "shape": list(data.shape)}


def _checked(frame: NDArray[np.generic]) -> Frame:
    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        got = f"{frame.dtype} {list(frame.shape)}" if isinstance(frame, np.ndarray) else type(frame).__name__
        raise PolicyError("invalid_request", f"a frame must be uint8 [height, width, 3], RGB; got {got}")
    if not frame.size:
        raise PolicyError("invalid_request", "a frame of no pixels")
    return frame.astype(np.uint8, copy=False)


def _as_jpeg(image: Image.Image, quality: int) -> bytes:
    data = io.BytesIO()
    image.save(data, "JPEG", quality=quality)
    return data.getvalue()
