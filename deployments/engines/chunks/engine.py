"""The engine of a chunk policy: one model, one thread that runs it, and batches across all who ask."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from configs.base import ConfigError
from configs.policies import ChunkPolicy
from deployments.chunks.checkpoint import load, read_weights
from deployments.chunks.description import TRAIN_CONFIG, ChunkDescription, read_description
from deployments.chunks.predict import Predictor
from deployments.chunks.transforms import units_of
from deployments.engines.base import DeviceStatus
from deployments.engines.chunks.batched import BatchedEngine, torch_device
from deployments.errors import PolicyError
from deployments.protocol.act import Actions, ChunkRequest

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
# What clients and the model's tensors rely on: another value is another policy.
SAME_IN_ALL_VERSIONS = ("resolution", "num_cams", "max_state_dim", "max_action_dim", "action_dim", "chunk_len", "model")


class ChunkPolicyEngine(BatchedEngine):
    """A `ChunkEngine`. Owner: a replica. An update of the weights waits for the pass that runs, and the next one has
    the new weights: an answer never mixes two versions."""

    def __init__(self, config: ChunkPolicy) -> None:
        super().__init__(config)
        self._updating = asyncio.Lock()

    @property
    def description(self) -> ChunkDescription:
        """Of the checkpoint that is loaded."""
        return self._predictor.model.description

    async def load(self) -> None:
        """Raises ConfigError: no usable checkpoint, or no GPU where one is asked for."""
        self._predictor = await self._batches.between_passes(self._loaded)

    def _loaded(self) -> Predictor:
        wanted, cuda = self._config.device, torch.cuda.is_available()
        if wanted == "gpu" and not cuda:
            raise ConfigError("device is gpu, but torch sees no GPU here: set device to auto or cpu")
        device = "cuda" if cuda and wanted != "cpu" else "cpu"
        model = load(Path(self._config.checkpoint))
        predictor = Predictor(model, self._config.flow_steps, device, DTYPES[self._config.dtype])
        if self._config.compile:
            predictor.compile(self._config.max_batch)
        if self._config.warmup:  # the first pass is slow; compiled, the first of each size
            request = blank_request(model.description)
            for size in predictor.sizes or (1, self._config.max_batch):
                predictor([request] * size)
        return predictor

    def _check(self, request: ChunkRequest) -> None:
        self._predictor.check(request)

    def _predicted(self, requests: Sequence[ChunkRequest]) -> list[Actions]:
        return self._predictor(requests)

    def _failed(self, error: BaseException) -> None:
        """After an error on the device no later pass can be trusted, and most fail."""
        if isinstance(error, torch.AcceleratorError):
            self._breaker.trip(f"the device failed in a forward pass: {error!r}")

    async def update(self, folder: Path, version: int) -> None:
        """See `Engine.update`. What is in `folder` is checked whole before the model is touched."""
        async with self._updating:
            if version > self._version:
                await self._take_up(folder, version)

    async def _take_up(self, folder: Path, version: int) -> None:
        model = self._predictor.model
        try:
            description = read_description(folder) if (folder / TRAIN_CONFIG).is_file() else None
            if description is not None:
                _check_same(description, model.description)
            weights = await asyncio.to_thread(read_weights, folder, model)
        except ConfigError as error:
            raise PolicyError("stale_weights", f"version {version} cannot be loaded: {error}") from error

        def swap() -> None:
            model.load_state_dict(weights)
            if description is not None:
                model.description = description
                self._predictor.use(units_of(description))
            self._version = version

        try:
            await self._batches.between_passes(swap)
        except Exception as error:
            self._breaker.trip(f"a weight update broke off half-way: {error!r}")
            raise PolicyError("engine_failed", str(self._breaker.reason)) from error

    def device(self) -> DeviceStatus:
        return torch_device(self._predictor.device)


def blank_request(description: ChunkDescription) -> ChunkRequest:
    """Black frames and a state of zeros."""
    return ChunkRequest(
        request_id="blank",
        images=np.zeros((description.num_cams, *description.resolution, 3), np.uint8),
        image_mask=np.ones(description.num_cams, np.bool_),
        state=np.zeros(0, np.float32),
        prompt="",
    )


def _check_same(new: ChunkDescription, old: ChunkDescription) -> None:
    other = [name for name in SAME_IN_ALL_VERSIONS if getattr(new, name) != getattr(old, name)]
    other += [
        f"statistics.{name}"
        for name, statistics in old.statistics.items()
        if name not in new.statistics or len(new.statistics[name].state) != len(statistics.state)
    ]
    if other:
        raise ConfigError(f"it is another policy, by its {', '.join(other)}: start it as a policy of its own")
