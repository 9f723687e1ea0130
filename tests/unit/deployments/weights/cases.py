"""Tensors to publish, and how to compare what arrived."""

from __future__ import annotations

import torch
from safetensors.torch import load_file

from deployments.weights.store import Fetched

Pairs = list[tuple[str, torch.Tensor]]


def pairs(value: float = 1.0, tensors: int = 3) -> Pairs:
    return [(f"layers.{i}.weight", torch.full((4, 5), value + i)) for i in range(tensors)]


def load(fetched: Fetched) -> dict[str, torch.Tensor]:
    loaded: dict[str, torch.Tensor] = {}
    for shard in fetched.manifest.shards:
        loaded |= load_file(fetched.folder / shard.name)
    return loaded


def same(found: dict[str, torch.Tensor], expected: Pairs) -> bool:
    wanted = dict(expected)
    return found.keys() == wanted.keys() and all(
        found[n].dtype == t.dtype and found[n].shape == t.shape and bits(found[n]) == bits(t) for n, t in expected
    )


def bits(tensor: torch.Tensor) -> bytes:
    return b"" if tensor.numel() == 0 else tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
