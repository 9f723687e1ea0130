"""Answers to a stream of requests, in the order of the requests, while further ones are read. Pure asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

RequestT = TypeVar("RequestT")
AnswerT = TypeVar("AnswerT")


async def in_order(
    requests: AsyncIterator[RequestT],
    answer: Callable[[RequestT], Awaitable[AnswerT]],
    most_unanswered: int,
    cost: Callable[[RequestT], int] = lambda request: 1,
) -> AsyncGenerator[AnswerT, None]:
    """Consumes `requests` and starts `answer` for each as it arrives, so that whoever answers always knows the newest.

    Waits for the oldest answer; it is unblocked at once, too, when `requests` raises (the client left). Reading waits
    while the unanswered requests cost `most_unanswered` together, and an answer counts until our own consumer asks for
    the next: a slow client is not read from. Stops when `requests` ends and everything is answered. Raises what
    `requests` or the oldest answer raised; then, and when it is closed or cancelled, whatever is still being answered
    is cancelled, and has ended when this returns.
    """
    room = _Room(most_unanswered)
    started: asyncio.Queue[tuple[asyncio.Task[AnswerT], int] | None] = asyncio.Queue()
    running: set[asyncio.Task[Any]] = set()

    async def run(request: RequestT) -> AnswerT:
        return await answer(request)

    async def read() -> None:
        async for request in requests:
            taken = await room.enter(cost(request))
            task = asyncio.create_task(run(request))
            running.add(task)
            started.put_nowait((task, taken))
        started.put_nowait(None)

    reader = asyncio.create_task(read())
    try:
        while (oldest := await _unless_failed(asyncio.create_task(started.get()), reader)) is not None:
            task, taken = oldest
            yield await _unless_failed(task, reader)
            running.discard(task)
            room.leave(taken)
    finally:
        left = [reader, *running]
        for unfinished in left:
            unfinished.cancel()
        await asyncio.gather(*left, return_exceptions=True)


class _Room:
    """A semaphore whose users take up different amounts; one that wants more than there is takes all."""

    def __init__(self, size: int) -> None:
        self._size = self._free = size
        self._freed = asyncio.Event()

    async def enter(self, cost: int) -> int:
        wanted = min(max(1, cost), self._size)
        while self._free < wanted:
            self._freed.clear()
            await self._freed.wait()
        self._free -= wanted
        return wanted

    def leave(self, taken: int) -> None:
        self._free += taken
        self._freed.set()


async def _unless_failed(awaited: asyncio.Task[AnswerT], reader: asyncio.Task[None]) -> AnswerT:
    """The result of `awaited`; raises what `reader` raised as soon as it did."""
    try:
        while not awaited.done():
            await asyncio.wait({awaited, reader} if not reader.done() else {awaited}, return_when="FIRST_COMPLETED")
            _raise_of(reader)
        _raise_of(reader)
        return awaited.result()
    finally:
        awaited.cancel()  # no-op once it is done


def _raise_of(reader: asyncio.Task[None]) -> None:
    if reader.done() and not reader.cancelled() and (error := reader.exception()) is not None:
        raise error


def by_size(size_bytes: int) -> int:
    """Cost of a request that takes memory while it waits: one, and one more per MiB."""
    return 1 + size_bytes // 2**20
