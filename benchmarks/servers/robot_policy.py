"""The chunk policy that all sides serve, and one observation at a time through it, as a server without batches asks it.

The model is the one that `configs/bc/reach_tiny.yaml` trains, before its training: a pass costs the same.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from configs.bc import BCConfig, DemonstrationConfig
from deployments.chunks.checkpoint import load, save, untrained
from deployments.chunks.predict import Predictor
from deployments.chunks.transforms import cameras
from deployments.protocol.act import Actions, ChunkRequest, Frame, Vector
from training.imitation.chunks import describe
from training.imitation.robots import demonstrations, table

CAMERA_SIDE = 224  # pixels; openpi's and OpenTau's clients send about as many
FLOW_STEPS = 10
BC = BCConfig.load(Path(__file__).parents[2] / "configs" / "bc" / "reach_tiny.yaml")


def checkpoint(folder: Path) -> Path:
    """Writes it. The statistics are those of a few demonstrations."""
    config = BC.model_copy(update={"demonstrations": DemonstrationConfig(episodes=20)})
    description = describe(config, demonstrations(config))
    save(folder, description, untrained(description).state_dict())
    return folder


def observation(robot: int) -> tuple[Frame, Vector, str]:
    """(frame, state, instruction) of a robot: each is at a table of its own."""
    settings = BC.table.model_copy(update={"side": CAMERA_SIDE})
    seen = table(settings, "heldout").reset(robot)
    return seen.image, seen.state, seen.instruction


class SinglePolicy:
    """`infer` answers one observation with a pass of its own. Not for several threads at once."""

    def __init__(self, folder: str | Path, threads: int) -> None:
        torch.set_num_threads(threads)
        model = load(Path(folder))
        self._description = model.description
        self._predict = Predictor(model, FLOW_STEPS)
        self.infer(np.zeros((CAMERA_SIDE, CAMERA_SIDE, 3), np.uint8), np.zeros(2, np.float32), "", None)

    def infer(self, frame: Frame, state: Vector, prompt: str, noise_seed: int | None) -> Actions:
        """[horizon, D]."""
        return self._predict([self.request(frame, state, prompt, noise_seed)])[0]

    def request(self, frame: Frame, state: Vector, prompt: str, noise_seed: int | None) -> ChunkRequest:
        images, mask = cameras([frame], self._description.num_cams, self._description.resolution)
        return ChunkRequest(uuid.uuid4().hex, images, mask, state, prompt, noise_seed=noise_seed)

    def pass_ms(self, sizes: Sequence[int], repeats: int = 30) -> dict[int, float]:
        """Milliseconds of a forward pass with so many observations in it, the median. The sizes take turns."""
        seconds: dict[int, list[float]] = {size: [] for size in sizes}
        for _ in range(repeats):
            for size in sizes:
                batch = [self.request(*observation(robot), noise_seed=robot) for robot in range(size)]
                began = time.perf_counter()
                self._predict(batch)
                seconds[size].append(time.perf_counter() - began)
        return {size: float(np.median(values)) * 1e3 for size, values in seconds.items()}
