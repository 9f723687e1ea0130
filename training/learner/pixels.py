"""Images on their way into the model: processed once per batch, and never apart from their tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from deployments.storage.vision import Vision
from training.checks.alarms import Alarm, FaultFound
from training.types import Images, Sample


@dataclass(frozen=True)
class Pixels:
    """What a vision-language model takes of the N images of a micro-batch, in the order of its sequences: P patches in
    all, each of D numbers."""

    patches: Tensor  # [P, D] float32
    grids: Tensor  # [N, 3] int64: time, rows and columns of each image's patches

    def to(self, device: torch.device) -> Pixels:
        return Pixels(self.patches.to(device, non_blocking=True), self.grids.to(device, non_blocking=True))

    def inputs(self, token_ids: Tensor, vision: Vision) -> dict[str, Tensor]:
        """What a model's forward takes beside the token ids."""
        return {
            "pixel_values": self.patches,
            "image_grid_thw": self.grids,
            "mm_token_type_ids": (token_ids == vision.image_id).int(),
        }


class PixelReader:
    """Turns the images of samples into pixels, with the model's own processor."""

    def __init__(self, vision: Vision, processor: Any) -> None:
        """`processor`: transformers' image processor of the model."""
        self.vision, self._processor = vision, processor
        self._read: dict[tuple[tuple[int, ...], bytes], tuple[Tensor, Tensor]] = {}

    @classmethod
    def load(cls, folder: str | Path) -> Self | None:
        """None for a model without images. Raises VisionUnsupported."""
        vision = Vision.load(folder)
        if vision is None:
            return None
        from transformers import AutoImageProcessor

        return cls(vision, AutoImageProcessor.from_pretrained(folder))

    def fresh(self) -> PixelReader:
        """One that remembers nothing: what it has read is kept for as long as it is."""
        return PixelReader(self.vision, self._processor)

    def __call__(self, samples: Sequence[Sample]) -> Pixels | None:
        """None where no sample shows an image. Raises FaultFound when a sample's image tokens are not those of its
        images: the model would see parts of one image in the place of another."""
        self._process([image for sample in samples for image in sample.images])
        read = [[self._read[_key(image)] for image in sample.images] for sample in samples]
        for sample, images in zip(samples, read, strict=True):
            self._check(sample, [grid for _, grid in images])
        every = [each for images in read for each in images]
        if not every:
            return None
        return Pixels(torch.cat([patches for patches, _ in every]), torch.stack([grid for _, grid in every]))

    def _process(self, images: Images | list[np.ndarray]) -> None:
        unread = {key: image for image in images if (key := _key(image)) not in self._read}
        if not unread:
            return
        # an image of 1 or 3 pixels height would be taken for one with its channels first
        made = self._processor(images=list(unread.values()), return_tensors="pt", input_data_format="channels_last")
        grids = made["image_grid_thw"]
        patches = made["pixel_values"].split(grids.prod(dim=1).tolist())
        self._read.update(zip(unread, zip(patches, grids, strict=True), strict=True))

    def _check(self, sample: Sample, grids: Sequence[Tensor]) -> None:
        expected = sum(int(grid.prod()) // self.vision.merge**2 for grid in grids)
        found = int(np.count_nonzero(np.asarray(sample.token_ids_T) == self.vision.image_id))
        if found != expected:
            raise FaultFound(
                Alarm(
                    "image tokens",
                    f"a sequence of group {sample.group} has {found} image tokens, and its {len(grids)} images make "
                    f"{expected}: tokens and pixels were cut apart",
                )
            )


def _key(image: np.ndarray) -> tuple[tuple[int, ...], bytes]:
    return image.shape, image.tobytes()
