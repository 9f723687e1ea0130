"""Concurrent calls that arrive close together travel as one: a call costs more than what it carries."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Callable, Sequence
from typing import Any, Generic, TypeVar

from deployments.errors import PolicyError

ItemT = TypeVar("ItemT")


AnswerT = TypeVar("AnswerT")


class Batcher(Generic[ItemT, AnswerT]):
    """`await batcher(item, deadline_s)` answers one item; items of one window are sent together by `send(items)`, which
    streams lists of (place in items, answer): no short answer waits for a long one.

    Consumes items; waits `window_s` after the first, or until `max_batch` are there. A failure of `send` is raised to
    every caller of that batch that has no answer yet; PolicyError("deadline_exceeded") to one that waited `deadline_s`
    and the margin of the way: whoever answers keeps the deadline itself.
    """

    def __init__(
        self,
        send: Callable[[list[ItemT]], AsyncIterable[Sequence[tuple[int, AnswerT]]]],
        window_s: float,
        max_batch: int,
        margin_s: float = 5.0,
    ) -> None:
        self._send = send
        self._window_s = window_s
        self._max_batch = max_batch
        self._margin_s = margin_s
        self._waiting: list[tuple[ItemT, asyncio.Future[AnswerT]]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    async def __call__(self, item: ItemT, deadline_s: float) -> AnswerT:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[AnswerT] = loop.create_future()
        self._waiting.append((item, future))
        if len(self._waiting) >= self._max_batch:
            self._flush()
        elif self._timer is None:
            self._timer = loop.call_later(self._window_s, self._flush)
        late = loop.call_later(deadline_s + self._margin_s, _give_up, future, deadline_s)
        try:
            return await future
        finally:
            late.cancel()

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        batch = [(item, future) for item, future in self._waiting if not future.done()]
        self._waiting = []
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


def _give_up(future: asyncio.Future[Any], deadline_s: float) -> None:
    if not future.done():
        future.set_exception(PolicyError("deadline_exceeded", f"no answer from a replica within {deadline_s:g} s"))
