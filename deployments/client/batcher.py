"""Concurrent calls that arrive close together travel as one: a call costs more than what it carries."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from deployments.errors import PolicyError

logger = logging.getLogger("rayward")

ItemT = TypeVar("ItemT")
AnswerT = TypeVar("AnswerT")

MAX_BATCH_BYTES = 1024 * 1024  # what is larger gains nothing by company, and would slow its company down
ABANDON_LIMIT_S = 10.0


@dataclass(eq=False)
class _Entry(Generic[ItemT, AnswerT]):
    """One item, the answers to it that nobody has taken yet, and who waits for them: `more` is done when there is
    something to take. `batch` is None until the item is sent; `ended`: no answer comes any more."""

    item: ItemT
    size_bytes: int
    more: asyncio.Future[None]
    answers: list[AnswerT] = field(default_factory=list)
    ended: bool = False
    failure: Exception | None = None
    batch: _Batch[ItemT, AnswerT] | None = None

    def put(self, answer: AnswerT, last: bool) -> None:
        self.answers.append(answer)
        self.ended = last
        self._wake()

    def fail(self, failure: Exception) -> None:
        """Answers that are there are taken before."""
        if not self.ended:
            self.ended, self.failure = True, failure
            self._wake()

    def _wake(self) -> None:
        if not self.more.done():
            self.more.set_result(None)

    async def take(self) -> list[AnswerT]:
        """All answers that are there; none only where there will be none any more."""
        await self.more
        answers, self.answers = self.answers, []
        if not self.ended:
            self.more = asyncio.get_running_loop().create_future()
        return answers


@dataclass(eq=False)
class _Batch(Generic[ItemT, AnswerT]):
    entries: list[_Entry[ItemT, AnswerT]]
    task: asyncio.Task[None] | None = None


class Batcher(Generic[ItemT, AnswerT]):
    """`await batcher(item, deadline_s)` answers one item; items of one window are sent together by `send(items)`, which
    streams lists of (place in items, answer): no short answer waits for a long one. An item may have several answers,
    up to one that `is_last`: `batcher.stream(item, deadline_s)` gives them as they come.

    Consumes items; waits `window_s` after the first, or until `max_batch` items or `max_bytes` are there (`size_of` an
    item; an item over `max_bytes` travels alone). A failure of `send` is raised to every caller of that batch that has
    no answer yet; PolicyError("deadline_exceeded") to a caller that waited `deadline_s` and `margin_s`: the far side
    enforces the deadline, the margin covers the way.

    A batch's call runs in a context of its own and belongs to none of the requests that it carries. A caller that
    leaves (cancelled, or past its deadline) takes only its own item along: `abandon(items)` tells the far side, and
    when nobody of a batch waits any more, the whole call is cancelled (`.cancel()` of what `send` returned, if it has
    one).
    """

    def __init__(
        self,
        send: Callable[[list[ItemT]], AsyncIterable[Sequence[tuple[int, AnswerT]]]],
        window_s: float,
        max_batch: int,
        margin_s: float = 5.0,
        max_bytes: int = MAX_BATCH_BYTES,
        size_of: Callable[[ItemT], int] | None = None,
        abandon: Callable[[list[ItemT]], Awaitable[object]] | None = None,
        is_last: Callable[[AnswerT], bool] = lambda answer: True,
    ) -> None:
        self._send = send
        self._window_s = window_s
        self._max_batch = max_batch
        self._margin_s = margin_s
        self._max_bytes = max_bytes
        self._size_of = size_of
        self._abandon = abandon
        self._is_last = is_last
        self._waiting: list[_Entry[ItemT, AnswerT]] = []
        self._waiting_bytes = 0
        self._departed: list[ItemT] = []
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __call__(self, item: ItemT, deadline_s: float) -> AnswerT:
        """The first answer, which must be the last."""
        async with aclosing(self.stream(item, deadline_s)) as answers:
            return (await anext(answers))[0]

    async def stream(self, item: ItemT, deadline_s: float) -> AsyncGenerator[list[AnswerT]]:
        """Lists of the answers, as they come; those that came meanwhile are in one list. Closing this iterator is
        leaving. A failure is raised after the answers that came before it."""
        loop = asyncio.get_running_loop()
        size_bytes = self._size_of(item) if self._size_of else 0
        entry: _Entry[ItemT, AnswerT] = _Entry(item, size_bytes, loop.create_future())
        self._add(entry, loop)
        late = PolicyError("deadline_exceeded", f"no answer from a replica within {deadline_s:g} s")
        timer = loop.call_later(deadline_s + self._margin_s, entry.fail, late)
        try:
            while not entry.ended or entry.answers:
                if answers := await entry.take():
                    yield answers
            if entry.failure is not None:
                raise entry.failure
        finally:
            timer.cancel()
            if not entry.ended or entry.failure is late:
                self._depart(entry, loop)

    def _add(self, entry: _Entry[ItemT, AnswerT], loop: asyncio.AbstractEventLoop) -> None:
        if self._waiting and self._waiting_bytes + entry.size_bytes > self._max_bytes:
            self._flush()
        self._waiting.append(entry)
        self._waiting_bytes += entry.size_bytes
        if len(self._waiting) >= self._max_batch or self._waiting_bytes >= self._max_bytes:
            self._flush()
        elif self._timer is None:
            self._timer = loop.call_later(self._window_s, self._flush)

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        entries, self._waiting, self._waiting_bytes = self._waiting, [], 0
        if not entries:
            return
        batch = _Batch(entries)
        for entry in entries:
            entry.batch = batch
        batch.task = self._start(self._deliver(batch))

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        # An empty context: Serve cancels the calls that were made in the context of a request when its client leaves.
        task = asyncio.get_running_loop().create_task(work, context=contextvars.Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _deliver(self, batch: _Batch[ItemT, AnswerT]) -> None:
        failure: Exception = PolicyError("unavailable", "the replica ended its answers early: try again")
        call: AsyncIterable[Sequence[tuple[int, AnswerT]]] | None = None
        try:
            call = self._send([entry.item for entry in batch.entries])
            async for answers in call:
                for place, answer in answers:
                    if not (entry := batch.entries[place]).ended:
                        entry.put(answer, self._is_last(answer))
        except asyncio.CancelledError:
            if (cancel := getattr(call, "cancel", None)) is not None:
                cancel()  # to stop reading the answers does not stop a Serve call
            raise
        except Exception as error:
            failure = error
        finally:
            for entry in batch.entries:
                entry.fail(failure)

    def _depart(self, entry: _Entry[ItemT, AnswerT], loop: asyncio.AbstractEventLoop) -> None:
        """Nobody waits for this item any more."""
        entry.ended = True
        if entry.batch is None:
            if entry in self._waiting:
                self._waiting.remove(entry)
                self._waiting_bytes -= entry.size_bytes
            return
        task = entry.batch.task
        if task is None or task.done():
            return
        if all(other.ended for other in entry.batch.entries):
            task.cancel()
        elif self._abandon is not None:
            if not self._departed:
                loop.call_soon(self._tell, context=contextvars.Context())
            self._departed.append(entry.item)

    def _tell(self) -> None:
        departed, self._departed = self._departed, []
        self._start(self._tell_far_side(departed))

    async def _tell_far_side(self, departed: list[ItemT]) -> None:
        assert self._abandon is not None
        try:
            async with asyncio.timeout(ABANDON_LIMIT_S):
                await self._abandon(departed)
        except Exception as error:  # the work then ends at its deadline
            logger.warning("%d abandoned requests could not be cancelled: %r", len(departed), error)
