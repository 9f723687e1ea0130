"""`Chat` over a Serve handle: how the ingress asks a vision-language policy that answers whole conversations."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from deployments.errors import PolicyError, grpc_failure
from deployments.protocol.act import ChatAnswer, ChatRequest, ChatResult
from deployments.protocol.generate import GenerateFailure

WAY_S = 1.0  # beyond the deadline, which the replica keeps itself


class ServeChat:
    """Awaitable `chat(request) -> result` through a handle of a deployment with a method `chat`. A cancelled call is
    cancelled in the replica, by Serve. Raises PolicyError."""

    def __init__(self, handle: Any, clock: Callable[[], float] = time.time) -> None:
        self._handle = handle
        self._clock = clock

    async def __call__(self, request: ChatRequest) -> ChatResult:
        answer = await self._asked(request)
        if isinstance(answer, GenerateFailure):
            raise PolicyError(answer.kind, answer.message, answer.request_id, answer.retry_after_s, answer.rate_limit)
        return answer

    async def _asked(self, request: ChatRequest) -> ChatAnswer:
        try:
            async with asyncio.timeout(max(0.0, request.deadline_unix_s - self._clock()) + WAY_S):
                answer: ChatAnswer = await self._handle.chat.remote(request)
                return answer
        except TimeoutError as error:
            raise PolicyError("deadline_exceeded", "no answer within the deadline", request.request_id) from error
        except Exception as error:  # Serve's and Ray's many ways to lose a replica: all mean «try again»
            raise _translated(error, request.request_id) from error


def _translated(error: Exception, request_id: str) -> PolicyError:
    if type(error).__name__ == "BackPressureError":  # by name: this module loads no ray
        return PolicyError("overloaded", "too many requests wait for a replica: try again later", request_id)
    if (known := grpc_failure(error)) is not None:
        return PolicyError(known.kind, known.message, request_id)
    return PolicyError("unavailable", f"the call to the replica failed: {type(error).__name__}", request_id)
