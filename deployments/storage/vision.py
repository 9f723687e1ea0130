"""How an image becomes tokens of a vision-language model, told from the model's files: no processor and no torch.

A rollout worker must know how long a prompt is, and the learner must see the tokens that the replica saw. Both follow
from the size of the image alone in Qwen2-VL and its successors (Qwen2.5-VL, Qwen3-VL): the image is scaled to whole
squares of `merge` x `merge` patches within bounds of pixels, and each square is one token
(arXiv 2409.12191, section 2.1). Replica and learner count again with the model's own processor.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from configs.base import UserError

Size = tuple[int, int]  # height, width of an image, pixels
PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
VISION_TOKENS = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
MOST_SLENDER = 200  # times as long as wide: more is refused by the models' processors


class VisionUnsupported(UserError):
    """A vision-language model of which nothing here knows how many tokens an image takes."""


@dataclass(frozen=True)
class Vision:
    """One model's images. `special_ids`: tokens that stand for images or surround them; a policy must not say them,
    since a prompt with one more of them than it has images cannot be processed."""

    image_id: int
    special_ids: tuple[int, ...]
    patch: int  # pixels
    merge: int  # patches
    min_pixels: int
    max_pixels: int

    @classmethod
    def load(cls, folder: str | Path) -> Self | None:
        """None for a model without images. Raises VisionUnsupported."""
        path = Path(folder)
        config = _json(path / "config.json")
        if "vision_config" not in config:
            return None
        processor = next((_json(path / name) for name in PROCESSOR_FILES if (path / name).is_file()), {})
        images = processor.get("image_processor", processor)
        size = images.get("size") or {}
        smallest = images.get("min_pixels", size.get("shortest_edge"))
        largest = images.get("max_pixels", size.get("longest_edge"))
        needed = [config.get("image_token_id"), images.get("patch_size"), images.get("merge_size"), smallest, largest]
        if not all(isinstance(value, int) for value in needed):
            raise VisionUnsupported(
                f"{path.name} ({config.get('model_type')}) reads images in a way that is not known here: the files of "
                "Qwen2-VL, Qwen2.5-VL and Qwen3-VL say image_token_id, patch_size, merge_size and the bounds of pixels"
            )
        special = tuple(sorted({config[name] for name in VISION_TOKENS if isinstance(config.get(name), int)}))
        return cls(config["image_token_id"], special, images["patch_size"], images["merge_size"], smallest, largest)

    def tokens(self, size: Size) -> int:
        """Tokens of an image. Raises VisionUnsupported for one that no processor takes."""
        height, width = size
        if min(size) < 1 or max(size) > MOST_SLENDER * min(size):
            raise VisionUnsupported(f"an image of {height} x {width} pixels is too slender for the model's processor")
        square = self.patch * self.merge
        rows, columns = round(height / square), round(width / square)
        if rows * columns * square**2 > self.max_pixels:
            shrink = math.sqrt(height * width / self.max_pixels)
            rows = max(1, math.floor(height / shrink / square))
            columns = max(1, math.floor(width / shrink / square))
        elif rows * columns * square**2 < self.min_pixels:
            grow = math.sqrt(self.min_pixels / (height * width))
            rows, columns = math.ceil(height * grow / square), math.ceil(width * grow / square)
        return rows * columns

    def expanded(self, ids: Sequence[int], sizes: Sequence[Size]) -> tuple[int, ...]:
        """`ids` with one image token for each image -> with as many as each takes."""
        counts = iter([self.tokens(size) for size in sizes])
        made = [id_ for each in ids for id_ in ([each] * next(counts) if each == self.image_id else [each])]
        return tuple(made)


def _json(path: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return read
