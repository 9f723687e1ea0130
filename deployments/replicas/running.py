"""Requests under way in a replica, each by its own id: taken out of a batch when its caller leaves."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

from deployments.protocol.act import ChatRequest
from deployments.protocol.completion import CompletionRequest
from deployments.protocol.generate import GenerateFailure, GenerateRequest

logger = logging.getLogger("ray.serve")

RequestT = TypeVar("RequestT", GenerateRequest, CompletionRequest, ChatRequest)
ResultT = TypeVar("ResultT")
Emit = Callable[[ResultT], None]  # takes what comes before the answer

REMEMBERED = 8192  # ids of callers who left before their request arrived here, or whose request another replica has


class Running:
    """The requests that a replica works on. Each has an id of its own; `clock` is wall time in seconds."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._tasks: dict[str, asyncio.Task[object]] = {}
        self._departed: OrderedDict[str, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._tasks)

    def as_ready(
        self, requests: Sequence[RequestT], work: Callable[[RequestT], Awaitable[ResultT | GenerateFailure]]
    ) -> AsyncGenerator[list[tuple[int, ResultT | GenerateFailure]]]:
        """(place in `requests`, answer), as they get ready: no short answer waits for a long one, and no request is
        touched by what happens to another. Closing this iterator ends the work on all of them."""
        return self.pieces_as_ready(requests, lambda request, emit: work(request))

    async def pieces_as_ready(
        self,
        requests: Sequence[RequestT],
        work: Callable[[RequestT, Emit[ResultT]], Awaitable[ResultT | GenerateFailure]],
    ) -> AsyncGenerator[list[tuple[int, ResultT | GenerateFailure]]]:
        """As `as_ready`, and before its answer each request gets the pieces that its work emits."""
        ready: asyncio.Queue[tuple[int, ResultT | GenerateFailure]] = asyncio.Queue()
        missing = len(requests)

        async def one(place: int, request: RequestT) -> None:
            nonlocal missing

            def emit(piece: ResultT) -> None:
                ready.put_nowait((place, piece))

            answer = await self.answer(request, lambda request: work(request, emit))
            missing -= 1
            ready.put_nowait((place, answer))

        tasks = [asyncio.create_task(one(place, request)) for place, request in enumerate(requests)]
        try:
            while missing or not ready.empty():
                placed = [await ready.get()]
                await asyncio.sleep(0)  # what gets ready in the same engine step travels together
                while not ready.empty():
                    placed.append(ready.get_nowait())
                yield placed
        finally:
            for task in tasks:
                task.cancel()

    async def answer(
        self, request: RequestT, work: Callable[[RequestT], Awaitable[ResultT | GenerateFailure]]
    ) -> ResultT | GenerateFailure:
        """Does `work(request)` in the calling task; `work` gets the request with the seconds that are left to it.

        Gives a failure instead of the work's answer: `deadline_exceeded` for a request that arrives too late (the work
        is not begun), `cancelled` for one whose caller left, `internal` for an exception of the work.
        """
        remaining_s = request.remaining_s(self._clock())
        if remaining_s <= 0:
            message = f"the request reached a replica {-remaining_s:.3g} s after its deadline (or their clocks differ)"
            return GenerateFailure(request.request_id, "deadline_exceeded", message)
        if request.request_id in self._departed:
            del self._departed[request.request_id]
            return _cancelled(request.request_id)
        task = asyncio.current_task()
        assert task is not None
        self._tasks[request.request_id] = task
        try:
            return await work(replace(request, deadline_s=remaining_s))
        except asyncio.CancelledError:
            if request.request_id not in self._departed:
                raise  # the whole call was cancelled
            del self._departed[request.request_id]
            task.uncancel()
            return _cancelled(request.request_id)
        except Exception:
            logger.exception("request %s failed", request.request_id)
            return GenerateFailure(request.request_id, "internal", "the replica failed; its log has the details")
        finally:
            if self._tasks.get(request.request_id) is task:
                del self._tasks[request.request_id]

    def abandon(self, request_ids: Iterable[str]) -> None:
        """Ends these requests; an unknown one is remembered, because it may still be on its way here."""
        for request_id in request_ids:
            self._departed[request_id] = None
            if (task := self._tasks.pop(request_id, None)) is not None:
                task.cancel()
        while len(self._departed) > REMEMBERED:
            self._departed.popitem(last=False)


def _cancelled(request_id: str) -> GenerateFailure:
    return GenerateFailure(request_id, "cancelled", "the caller left before the answer was ready")
