"""`Chunks` over Ray Serve: how a robot policy on replicas of ours is asked for a chunk of actions."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from deployments.client.handle import abandon_on, call_failure
from deployments.errors import PolicyError
from deployments.protocol.act import ChunkAnswer, ChunkRequest, ChunkResult, ChunkShape
from deployments.protocol.generate import GenerateFailure

logger = logging.getLogger("rayward")

AnswerT = TypeVar("AnswerT")
MARGIN_S = 1.0  # the replica keeps the deadline itself; the margin covers the way
SHAPE_LIMIT_S = 10.0
ABANDON_LIMIT_S = 10.0


class ServeChunks:
    """Awaitable `chunks(request) -> result` through a Serve handle of a deployment with `act(request)`, `shape()` and
    `abandon(request_ids)`. The engine batches over all callers, so every request is a call of its own.

    Raises PolicyError. Every wait is bounded by the request's deadline; a caller that leaves takes its request out of
    the engine's next pass.
    """

    def __init__(self, handle: Any, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._act = handle.options(method_name="act")
        self._shape = handle.options(method_name="shape")
        self._abandon = abandon_on(handle)
        self._tasks: set[asyncio.Task[Any]] = set()

    async def __call__(self, request: ChunkRequest) -> ChunkResult:
        remaining_s = request.remaining_s(self._clock())
        if remaining_s <= 0:
            raise PolicyError("deadline_exceeded", "the deadline passed before the policy was asked", request.request_id)
        call = self._start(self._called(request))
        try:
            answer = await asyncio.wait_for(asyncio.shield(call), remaining_s + MARGIN_S)
        except TimeoutError as error:
            self._leave(call, request)
            raise PolicyError("deadline_exceeded", "no answer from a replica in time", request.request_id) from error
        except asyncio.CancelledError:
            self._leave(call, request)
            raise
        except Exception as error:
            raise call_failure(error, request.request_id) from error
        if isinstance(answer, GenerateFailure):
            raise PolicyError(answer.kind, answer.message, answer.request_id)
        return answer

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

    async def _called(self, request: ChunkRequest) -> ChunkAnswer:
        response = self._act.remote(request)
        try:
            answer: ChunkAnswer = await response
        except asyncio.CancelledError:
            response.cancel()
            raise
        return answer

    def _leave(self, call: asyncio.Task[ChunkAnswer], request: ChunkRequest) -> None:
        call.cancel()
        self._start(self._told(request))

    async def _told(self, request: ChunkRequest) -> None:
        try:
            async with asyncio.timeout(ABANDON_LIMIT_S):
                await self._abandon([request])
        except Exception as error:  # the work then ends at its deadline
            logger.warning("an abandoned request could not be cancelled: %r", error)

    def _start(self, work: Coroutine[Any, Any, AnswerT]) -> asyncio.Task[AnswerT]:
        # An empty context: Serve cancels the calls that were made in the context of a request when its client leaves.
        task = asyncio.get_running_loop().create_task(work, context=contextvars.Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
