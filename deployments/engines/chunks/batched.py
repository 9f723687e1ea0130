"""What all engines of chunk policies have in common: requests join passes in one thread, and are told what failed."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from configs.policies import ChunkPolicy
from deployments.engines.base import Breaker, DeviceStatus
from deployments.engines.chunks.batching import DynamicBatches
from deployments.errors import PolicyError
from deployments.protocol.act import Actions, ChunkAnswer, ChunkRequest, ChunkResult
from deployments.protocol.generate import GenerateFailure
from deployments.weights.push_steps import PushStep

CLOSE_LIMIT_S = 10.0


class BatchedEngine(ABC):
    """The part of a `ChunkEngine` that is the same for every model. `act` may be called from many tasks at once."""

    def __init__(self, config: ChunkPolicy) -> None:
        self._config = config
        self._breaker = Breaker()
        self._version = 0
        self._batches = DynamicBatches[ChunkRequest, tuple[Actions, int]](
            self._answer, config.max_batch, config.batch_window_ms / 1e3, self._failed
        )

    @abstractmethod
    def _check(self, request: ChunkRequest) -> None:
        """Raises PolicyError for a request that the policy cannot answer, before it joins a batch."""

    @abstractmethod
    def _predicted(self, requests: Sequence[ChunkRequest]) -> list[Actions]:
        """The chunk [horizon, D] of each request, un-normalised. Runs in the thread."""

    @abstractmethod
    def _failed(self, error: BaseException) -> None:
        """A pass raised this: trips the breaker where no later pass can be trusted."""

    @property
    def version(self) -> int:
        return self._version

    @property
    def breaker(self) -> Breaker:
        return self._breaker

    async def act(self, request: ChunkRequest) -> ChunkAnswer:
        """See `ChunkEngine.act`; a request that the policy cannot answer joins no batch."""
        try:
            self._check(request)
            answered = await self._batches.submit(request, request.deadline_s)
        except PolicyError as error:
            return GenerateFailure(request.request_id, error.kind, error.message)
        actions, version = answered.answer
        return ChunkResult(request.request_id, actions, version, answered.queue_ms, answered.infer_ms)

    def _answer(self, requests: Sequence[ChunkRequest]) -> list[tuple[Actions, int]]:
        """In the thread."""
        version = self._version
        return [(actions, version) for actions in self._predicted(requests)]

    async def push(self, step: PushStep) -> None:
        raise PolicyError("invalid_request", "a chunk policy takes no pushes: publish to its weights_root")

    def held(self) -> Mapping[str, int]:
        """Requests advance by being answered, so the number is always 0."""
        return {f"{request.request_id}#{id(request)}": 0 for request in self._batches.held()}

    def unfinished(self) -> int:
        return len(self._batches.held())

    async def health(self) -> None:  # noqa: B027 (there is nothing to look at, for any of them)
        """The thread ends with the process; that it stands still is seen in `held`."""

    async def close(self) -> None:
        async with asyncio.timeout(CLOSE_LIMIT_S):
            await self._batches.close()


def torch_device(device: str) -> DeviceStatus:
    """What this process's torch says of "cpu" or "cuda"."""
    import torch

    if device == "cpu":
        return DeviceStatus("cpu")
    free, total = torch.cuda.mem_get_info()
    return DeviceStatus(torch.cuda.get_device_name(), (total - free) / 1e9, total / 1e9)
