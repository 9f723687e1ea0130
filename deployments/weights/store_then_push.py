"""Weight versions pushed to the replicas that are up (NCCL, CUDA IPC), after they are in the store.

The store is what makes every version reachable: the push only spares the replicas the pull. So a replica that joins,
restarts or misses a push is never wrong, and a push that fails costs time, not correctness.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

import torch

from deployments.weights.publishers import StorePublisher, WeightPublisher, gathered
from deployments.weights.push import ServeControl

logger = logging.getLogger("rayward")


Members = tuple[tuple[int, float], ...]  # (process id, start time) of each replica


class StoreThenPush:
    """Publishes to the store, then through the group of the replicas that exist now, which is made again whenever they
    change: NCCL groups have a fixed size. Called on every rank; rank 0 gathers the whole model, stores and sends it.
    """

    def __init__(
        self,
        store: StorePublisher,
        control: ServeControl,
        make: Callable[[int], Any],
        rank: int = 0,
        dtype: torch.dtype | None = None,
    ) -> None:
        """`make(replicas)` opens a publisher (NcclPublisher, IpcPublisher) for that many replicas."""
        self._store, self._control, self._make = store, control, make
        self._rank, self._dtype = rank, dtype
        self._members: Members = ()
        self._publisher: WeightPublisher | None = None

    def publish(self, version: int, tensors: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Raises what the store raises; a failed push is logged, and the replicas pull."""
        pairs = gathered(tensors, self._dtype)
        if self._rank != 0:
            for _ in pairs:
                pass
            return
        whole = list(pairs)
        self._store.publish(version, whole)
        try:
            self._group().publish(version, whole)
        except Exception as error:  # NCCL's, CUDA's, Ray's and vLLM's: whatever it was, the store has the version
            logger.warning("pushing version %d failed, the replicas will pull it: %r", version, error)
            self.close()

    def _group(self) -> WeightPublisher:
        members = self._control.members()
        if self._publisher is None or members != self._members:
            self.close()
            self._publisher, self._members = self._make(len(members)), members
        return self._publisher

    def close(self) -> None:
        publisher, self._publisher = self._publisher, None
        if publisher is not None:
            try:
                publisher.close()  # type: ignore[attr-defined]
            except Exception as error:
                logger.warning("closing the transfer group: %r", error)
