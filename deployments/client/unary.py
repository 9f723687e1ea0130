"""One call of a Serve handle per request: bounded by the request's deadline, taken back when its caller leaves."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any, Generic, Protocol, TypeVar

from deployments.client.handle import abandon_on, call_failure, failure_of
from deployments.client.resending import resending
from deployments.errors import PolicyError
from deployments.protocol.generate import GenerateFailure

logger = logging.getLogger("rayward")

MARGIN_S = 1.0  # the replica keeps the deadline itself; the margin covers the way
ABANDON_LIMIT_S = 10.0


class Asked(Protocol):
    """A request with an id and a deadline."""

    @property
    def request_id(self) -> str: ...

    def remaining_s(self, now_unix_s: float) -> float: ...


RequestT = TypeVar("RequestT", bound=Asked, contravariant=True)
ResultT = TypeVar("ResultT")


class Unary(Generic[RequestT, ResultT]):
    """Awaitable `call(request) -> result` through a Serve handle: `method(request)` of a deployment gives a result or a
    GenerateFailure. For requests that gain nothing by sharing a call (`Batcher`): they are large, or answered slowly.

    A request that its replica took along when it died goes to another one. Raises PolicyError. When a caller leaves
    (cancelled, or past its deadline) the call is cancelled, and with `abandons` the deployment is told, too, by its
    method `abandon(request_ids)`. `clock` is wall time in seconds.
    """

    def __init__(self, handle: Any, method: str, abandons: bool = True, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._call = handle.options(method_name=method)
        self._abandon = abandon_on(handle) if abandons else None
        self._tasks: set[asyncio.Task[Any]] = set()

    async def __call__(self, request: RequestT) -> ResultT:
        answer: ResultT | GenerateFailure = await resending()(self._sent, request)
        if isinstance(answer, GenerateFailure):
            raise failure_of(answer)
        return answer

    async def _sent(self, request: RequestT) -> ResultT | GenerateFailure:
        remaining_s = request.remaining_s(self._clock())
        if remaining_s <= 0:
            raise PolicyError("deadline_exceeded", "the deadline passed before the model was asked", request.request_id)
        call = self._start(self._called(request))
        try:
            return await asyncio.wait_for(asyncio.shield(call), remaining_s + MARGIN_S)
        except TimeoutError as error:
            self._leave(call, request)
            raise PolicyError("deadline_exceeded", "no answer from a replica in time", request.request_id) from error
        except asyncio.CancelledError:
            self._leave(call, request)
            raise
        except Exception as error:
            raise call_failure(error, request.request_id) from error

    async def _called(self, request: RequestT) -> ResultT | GenerateFailure:
        response = self._call.remote(request)
        try:
            answer: ResultT | GenerateFailure = await response
        except asyncio.CancelledError:
            response.cancel()
            raise
        return answer

    def _leave(self, call: asyncio.Task[Any], request: RequestT) -> None:
        call.cancel()
        if self._abandon is not None:
            self._start(self._told(self._abandon, request))

    async def _told(self, abandon: Callable[[list[Any]], Any], request: RequestT) -> None:
        try:
            async with asyncio.timeout(ABANDON_LIMIT_S):
                await abandon([request])
        except Exception as error:  # the work then ends at its deadline
            logger.warning("an abandoned request could not be cancelled: %r", error)

    def _start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        # An empty context: Serve cancels the calls that were made in the context of a request when its client leaves.
        task = asyncio.get_running_loop().create_task(work, context=contextvars.Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
