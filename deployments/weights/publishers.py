"""The learner's side of the weight store: gathers sharded tensors and publishes them as a version."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch

from deployments.weights.manifest import Kind
from deployments.weights.store import WeightStore

if TYPE_CHECKING:
    pass


class WeightPublisher(Protocol):
    """Brings a version from the learner to the replicas, or to where they take it from."""

    def publish(self, version: int, tensors: Iterable[tuple[str, torch.Tensor]]) -> None: ...


def gathered(
    tensors: Iterable[tuple[str, torch.Tensor]], dtype: torch.dtype | None = None
) -> Iterator[tuple[str, torch.Tensor]]:
    """Whole tensors, one at a time: DTensors are gathered (a collective), floating-point ones converted to `dtype`."""
    for name, tensor in tensors:
        full = getattr(tensor, "full_tensor", None)
        whole: torch.Tensor = (full() if callable(full) else tensor).detach()
        yield name, whole.to(dtype) if dtype is not None and whole.is_floating_point() else whole


class StorePublisher:
    """Into a WeightStore, from which replicas pull. Works everywhere; a replica that joins late misses nothing."""

    def __init__(
        self,
        store: WeightStore,
        rank: int = 0,
        config_files: Path | None = None,
        kind: Kind = "full",
        dtype: torch.dtype | None = None,
    ) -> None:
        self._store, self._rank, self._config_files, self._kind, self._dtype = store, rank, config_files, kind, dtype

    def publish(self, version: int, tensors: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Raises what WeightStore.publish raises, on rank 0."""
        pairs = gathered(tensors, self._dtype)
        if self._rank == 0:
            self._store.publish(version, pairs, self._config_files, self._kind)
        else:
            for _ in pairs:
                pass
