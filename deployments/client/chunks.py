"""`Chunks` over Ray Serve: how a robot policy on replicas of ours is asked for a chunk of actions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from deployments.client.handle import call_failure
from deployments.client.unary import Unary
from deployments.errors import PolicyError
from deployments.protocol.act import ChunkRequest, ChunkResult, ChunkShape

SHAPE_LIMIT_S = 10.0


class ServeChunks:
    """`handle`: a Serve handle of a deployment with `act(request)`, `shape()` and `abandon(request_ids)`. Its engine
    batches over all callers, so every request is a call of its own. Raises PolicyError."""

    def __init__(self, handle: Any, clock: Callable[[], float] = time.time) -> None:
        self._act = Unary[ChunkRequest, ChunkResult](handle, "act", clock=clock)
        self._shape = handle.options(method_name="shape")

    async def __call__(self, request: ChunkRequest) -> ChunkResult:
        return await self._act(request)

    async def shape(self) -> ChunkShape:
        """What the policy takes and gives."""
        try:
            async with asyncio.timeout(SHAPE_LIMIT_S):
                found: ChunkShape = await self._shape.remote()
        except TimeoutError as error:
            raise PolicyError("unavailable", "no replica says what the policy takes: try again") from error
        except Exception as error:
            raise call_failure(error, "") from error
        return found
