"""`Chat` over Ray Serve: how a policy that acts asks a vision-language model on replicas of ours."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from deployments.client.batcher import Batcher
from deployments.client.handle import abandon_on, call_failure, failure_of
from deployments.client.resending import resending
from deployments.errors import PolicyError
from deployments.protocol.act import ChatAnswer, ChatRequest, ChatResult
from deployments.protocol.generate import GenerateFailure


class ServeChat:
    """Awaitable `chat(request) -> result` through a Serve handle of a deployment with `chat(requests)`, which streams
    (place in `requests`, answer).

    Frames travel as they are, without an image format: encoding one as PNG takes longer than the call. Requests of one
    turn of the event loop share a call, unless they are large. Raises PolicyError; every wait is bounded by the
    request's deadline, and a cancelled call is aborted in the engine. A request that its replica took along when it
    died goes to another one.
    """

    def __init__(self, handle: Any, max_batch: int = 16, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        call = handle.options(method_name="chat", stream=True)
        self._batcher: Batcher[ChatRequest, ChatAnswer] = Batcher(
            call.remote, window_s=0.0, max_batch=max_batch, size_of=_size_bytes, abandon=abandon_on(handle)
        )

    async def __call__(self, request: ChatRequest) -> ChatResult:
        answer: ChatAnswer = await resending()(self._sent, request)
        if isinstance(answer, GenerateFailure):
            raise failure_of(answer)
        return answer

    async def _sent(self, request: ChatRequest) -> ChatAnswer:
        remaining_s = request.remaining_s(self._clock())
        if remaining_s <= 0:
            raise PolicyError("deadline_exceeded", "the deadline passed before the model was asked", request.request_id)
        try:
            return await self._batcher(request, remaining_s)
        except Exception as error:
            raise call_failure(error, request.request_id) from error


def _size_bytes(request: ChatRequest) -> int:
    return request.size_bytes
