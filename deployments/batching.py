"""Concurrent calls that arrive close together travel as one: a call costs more than what it carries."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Callable, Sequence
from typing import Any, Generic, TypeVar

from deployments.errors import PolicyError

ItemT = TypeVar("ItemT")
AnswerT = TypeVar("AnswerT")


class Batcher(Generic[ItemT, AnswerT]):
    """`await batcher(item)` answers one item; items of one window are sent together by `send(items)`, which streams
    lists of (place in items, answer): no short answer waits for a long one.

    Consumes items; waits `window_s` after the first, or until `max_batch` are there; a failure of `send` is raised to
    every caller of that batch that has no answer yet.
    """

    def __init__(
        self,
        send: Callable[[list[ItemT]], AsyncIterable[Sequence[tuple[int, AnswerT]]]],
        window_s: float,
        max_batch: int,
    ) -> None:
        self._send = send
        self._window_s = window_s
        self._max_batch = max_batch
        self._waiting: list[tuple[ItemT, asyncio.Future[AnswerT]]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    async def __call__(self, item: ItemT) -> AnswerT:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[AnswerT] = loop.create_future()
        self._waiting.append((item, future))
        if len(self._waiting) >= self._max_batch:
            self._flush()
        elif self._timer is None:
            self._timer = loop.call_later(self._window_s, self._flush)
        return await future

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        batch, self._waiting = self._waiting, []
        if batch:
            task = asyncio.ensure_future(self._deliver(batch))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _deliver(self, batch: list[tuple[ItemT, asyncio.Future[AnswerT]]]) -> None:
        futures = [future for _, future in batch]
        failure: Exception = PolicyError("unavailable", "the replica ended its answers early: try again")
        try:
            async for answers in self._send([item for item, _ in batch]):
                for place, answer in answers:
                    if not futures[place].done():
                        futures[place].set_result(answer)
        except Exception as error:
            failure = error
        for future in futures:
            if not future.done():
                future.set_exception(failure)
