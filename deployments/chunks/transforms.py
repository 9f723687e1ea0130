"""From what a robot sends to what a chunk policy's model takes, and back: frames, cameras, state, units.

numpy and PIL only, so that whoever receives requests can use it without loading torch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from deployments.chunks.description import ChunkDescription, MeanStd, Quantiles, Statistics
from deployments.errors import PolicyError
from deployments.protocol.act import Frame, Vector


def resized(frame: Frame, height: int, width: int) -> Frame:
    """The frame [H, W, 3] as large as it fits into [height, width, 3], centred on black. The same bytes for the same
    frame on every machine; a frame of that size is returned as it is. Raises PolicyError("invalid_request")."""
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or 0 in frame.shape:
        raise PolicyError("invalid_request", f"a frame must be uint8 [H, W, 3], got {frame.dtype} {list(frame.shape)}")
    if frame.shape[:2] == (height, width):
        return frame
    scale = min(height / frame.shape[0], width / frame.shape[1])
    fitted_height = max(1, min(height, round(frame.shape[0] * scale)))
    fitted_width = max(1, min(width, round(frame.shape[1] * scale)))
    image = Image.fromarray(frame).resize((fitted_width, fitted_height), Image.Resampling.BILINEAR)
    canvas = np.zeros((height, width, 3), np.uint8)
    top, left = (height - fitted_height) // 2, (width - fitted_width) // 2
    canvas[top : top + fitted_height, left : left + fitted_width] = np.asarray(image)
    return canvas


def cameras(
    images: Sequence[Frame | None], num_cams: int, resolution: tuple[int, int]
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """(frames [num_cams, H, W, 3], mask [num_cams]). Image i is camera i; a camera that sent nothing is black and its
    mask is False. Raises PolicyError("invalid_request") for more images than cameras."""
    if len(images) > num_cams:
        raise PolicyError("invalid_request", f"{len(images)} images for a policy with {num_cams} camera(s)")
    frames = np.zeros((num_cams, *resolution, 3), np.uint8)
    mask = np.zeros(num_cams, np.bool_)
    for camera, image in enumerate(images):
        if image is not None:
            frames[camera] = resized(image, *resolution)
            mask[camera] = True
    return frames, mask


def padded(vector: Vector, length: int, what: str = "state") -> Vector:
    """[D] -> [length], zeros behind. Raises PolicyError("invalid_request") for one that is longer, not a vector, or not
    finite."""
    if vector.ndim != 1 or len(vector) > length:
        raise PolicyError(
            "invalid_request", f"the {what} must be a list of at most {length} numbers, got shape {list(vector.shape)}"
        )
    if not np.isfinite(vector).all():
        raise PolicyError("invalid_request", f"the {what} holds a number that is not finite")
    out = np.zeros(length, np.float32)
    out[: len(vector)] = vector
    return out


class Normalizer:
    """One vector's dimensions, normalised as (x - offset) / scale; float32 in, float32 out, computed in float64."""

    def __init__(self, statistics: MeanStd | Quantiles) -> None:
        if isinstance(statistics, MeanStd):
            offset, scale = np.array(statistics.mean), np.array(statistics.std)
        else:
            low, high = np.array(statistics.low), np.array(statistics.high)
            offset, scale = (low + high) / 2, (high - low) / 2
        self._offset, self._scale = offset, np.where(scale > 0, scale, 1.0)

    def __len__(self) -> int:
        return len(self._offset)

    def normalise(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """[..., D] -> [..., D]."""
        return ((values.astype(np.float64) - self._offset) / self._scale).astype(np.float32)

    def unnormalise(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """[..., D] -> [..., D], the robot's own units."""
        return (values.astype(np.float64) * self._scale + self._offset).astype(np.float32)


class RobotUnits:
    """Between one robot's numbers and the model's."""

    def __init__(self, statistics: Statistics) -> None:
        self.state = Normalizer(statistics.state)
        self.action = Normalizer(statistics.action)


def units_of(description: ChunkDescription) -> dict[str, RobotUnits]:
    """By the name of the statistics."""
    return {name: RobotUnits(statistics) for name, statistics in description.statistics.items()}


def named(units: dict[str, RobotUnits], name: str | None, default: str) -> RobotUnits:
    """Raises PolicyError("invalid_request") with the names that are known."""
    wanted = default if name is None else name
    if wanted not in units:
        raise PolicyError(
            "invalid_request", f"no action statistics {wanted!r}; this policy has {', '.join(sorted(units))}"
        )
    return units[wanted]
