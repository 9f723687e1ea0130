"""Requests to the tiny chunk policy."""

from __future__ import annotations

from typing import Any

import numpy as np

from deployments.protocol.act import ChunkRequest, Committed

CAMERAS, SIDE, HORIZON, ACTION_DIM = 2, 16, 10, 7


def request(name: str = "r", seed: int = 0, **changes: Any) -> ChunkRequest:
    """A request with everything drawn from `seed`."""
    rng = np.random.default_rng(seed)
    fields: dict[str, Any] = {
        "request_id": name,
        "images": rng.integers(0, 256, (CAMERAS, SIDE, SIDE, 3), dtype=np.uint8),
        "image_mask": np.array([True, rng.random() < 0.5]),
        "state": rng.normal(size=rng.integers(1, 33)).astype(np.float32),
        "prompt": " ".join(rng.choice(["pick", "the", "red", "cup", "up"], rng.integers(0, 6))),
        "noise_seed": int(rng.integers(2**62)),
    }
    return ChunkRequest(**{**fields, **changes})


def committed(rows: int = 6, delay: int = 3, seed: int = 0) -> Committed:
    return Committed(np.random.default_rng(seed).normal(size=(rows, ACTION_DIM)).astype(np.float32), delay)
