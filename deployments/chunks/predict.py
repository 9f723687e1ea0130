"""Chunk requests in, chunks out: a batch of whatever robots ask, through one forward pass. torch.

Requests of one batch may differ in all: prompt, cameras, state, statistics, seed, and what is committed.
"""

from __future__ import annotations

import secrets
import zlib
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deployments.chunks.model import FlowPolicy, Observed, Prefix
from deployments.chunks.prompts import word_ids
from deployments.chunks.real_time import prefix_weights
from deployments.chunks.transforms import RobotUnits, named, padded, units_of
from deployments.errors import PolicyError
from deployments.protocol.act import Actions, ChunkRequest


class Predictor:
    """A policy on its device. Not for several threads at once.

    The same request with the same seed has the same answer, bit for bit in a batch of the same size. Kernels may depend
    on the size of the batch (on a GPU, compiled, and on some CPUs with several threads): then the last bits differ.
    """

    def __init__(self, model: FlowPolicy, flow_steps: int, device: str = "cpu", dtype: torch.dtype = torch.float32):
        self.model = model.to(device=device, dtype=dtype).eval()
        self.flow_steps = flow_steps
        self.device, self._dtype = device, dtype
        self._sample = self.model.sample
        self.sizes: Sequence[int] = ()
        self.use(units_of(model.description))

    def use(self, units: dict[str, RobotUnits]) -> None:
        """Takes over other statistics."""
        self._units = units

    def compile(self, max_batch: int) -> None:
        """torch.compile, with batches padded to powers of two: it compiles once per size."""
        self._sample = torch.compile(self.model.sample, dynamic=False)
        self.sizes = [*(2**i for i in range(max_batch.bit_length()) if 2**i < max_batch), max_batch]

    def check(self, request: ChunkRequest) -> None:
        """Raises PolicyError("invalid_request") for what the policy cannot answer: before it joins a batch."""
        description = self.model.description
        expected = (description.num_cams, *description.resolution, 3)
        if request.images.dtype != np.uint8 or request.images.shape != expected:
            raise PolicyError(
                "invalid_request",
                f"images must be uint8 {list(expected)}, got {request.images.dtype} {list(request.images.shape)}",
            )
        if request.image_mask.shape != expected[:1]:
            raise PolicyError("invalid_request", f"image_mask must have one entry for each of {expected[0]} cameras")
        padded(request.state, len(self._units_of(request).state))
        self._check_committed(request)

    def _check_committed(self, request: ChunkRequest) -> None:
        committed, description = request.committed, self.model.description
        if committed is None:
            return
        if committed.actions.ndim != 2 or committed.actions.shape[1] != description.action_dim:
            raise PolicyError(
                "invalid_request",
                f"committed actions must have {description.action_dim} numbers each, got shape "
                f"{list(committed.actions.shape)}",
            )
        if not np.isfinite(committed.actions).all():
            raise PolicyError("invalid_request", "the committed actions hold a number that is not finite")
        most = min(description.max_delay, len(committed.actions))
        if not 0 <= committed.delay <= most:
            raise PolicyError(
                "invalid_request",
                f"delay must lie in 0..{most} (max_delay {description.max_delay}, {len(committed.actions)} committed "
                f"actions), got {committed.delay}",
            )

    def _units_of(self, request: ChunkRequest) -> RobotUnits:
        return named(self._units, request.statistics, self.model.description.default)

    @torch.inference_mode()
    def __call__(self, requests: Sequence[ChunkRequest]) -> list[Actions]:
        """The chunk [chunk_len, action_dim] of each request, un-normalised. The requests were checked."""
        size = next((size for size in self.sizes if size >= len(requests)), len(requests))
        batch = [*requests, *[requests[-1]] * (size - len(requests))]
        chunks = self._sample(self._observed(batch), self._noise(batch), self.flow_steps, self._prefix(batch))
        normalised = chunks[: len(requests), :, : self.model.description.action_dim].float().cpu().numpy()
        return [self._in_robots_units(request, chunk) for request, chunk in zip(requests, normalised, strict=True)]

    def _observed(self, requests: Sequence[ChunkRequest]) -> Observed:
        description = self.model.description
        sizes = description.model
        states = []
        for request in requests:
            units = self._units_of(request).state
            normalised = units.normalise(padded(request.state, len(units)))
            states.append(padded(normalised, description.max_state_dim))
        words = [word_ids(request.prompt, sizes.prompt_words, sizes.vocabulary) for request in requests]
        return Observed(
            images=self._to_device(np.stack([request.images for request in requests])),
            image_mask=self._to_device(np.stack([request.image_mask for request in requests])),
            state=self._to_device(np.stack(states)).to(self._dtype),
            words=self._to_device(np.stack(words)),
        )

    def _noise(self, requests: Sequence[ChunkRequest]) -> Tensor:
        """Each sample's own noise, drawn on the CPU: the same on every device."""
        description = self.model.description
        shape = (description.chunk_len, description.max_action_dim)
        drawn = []
        for request in requests:
            generator = torch.Generator().manual_seed(seed_of(request))
            drawn.append(torch.randn(shape, generator=generator))
        return torch.stack(drawn).to(device=self.device, dtype=self._dtype)

    def _prefix(self, requests: Sequence[ChunkRequest]) -> Prefix:
        description = self.model.description
        horizon = description.chunk_len
        actions = np.zeros((len(requests), horizon, description.max_action_dim), np.float32)
        weights = np.zeros((len(requests), horizon), np.float32)
        for row, request in enumerate(requests):
            committed = request.committed
            if committed is None:
                continue
            rows = min(horizon, len(committed.actions))
            normalised = self._units_of(request).action.normalise(committed.actions[:rows])
            actions[row, :rows, : description.action_dim] = normalised
            weights[row] = prefix_weights(horizon, rows, committed.delay)
        return Prefix(self._to_device(actions).to(self._dtype), self._to_device(weights))

    def _in_robots_units(self, request: ChunkRequest, normalised: NDArray[np.float32]) -> Actions:
        """The frozen rows are given back as they were sent, bit for bit."""
        actions = self._units_of(request).action.unnormalise(normalised)
        if request.committed is not None:
            actions[: request.committed.delay] = request.committed.actions[: request.committed.delay]
        return actions

    def _to_device(self, array: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(array).to(self.device)


def seed_of(request: ChunkRequest) -> int:
    """The request's seed; without one it follows from the request's id: a request that is sent again, perhaps to
    another replica, has the same answer."""
    if request.noise_seed is not None:
        return request.noise_seed % 2**63
    return zlib.crc32(request.request_id.encode()) if request.request_id else secrets.randbits(63)
