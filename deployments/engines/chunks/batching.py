"""Dynamic batching: whatever waits joins the next pass. No torch."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from deployments.errors import PolicyError

RequestT = TypeVar("RequestT")
AnswerT = TypeVar("AnswerT")
ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class Answered(Generic[AnswerT]):
    """`queue_ms`: from the request's arrival to the start of its pass; `infer_ms`: the pass."""

    answer: AnswerT
    queue_ms: float
    infer_ms: float


@dataclass(slots=True)
class _Waiting(Generic[RequestT, AnswerT]):
    request: RequestT
    arrived_s: float
    answer: asyncio.Future[Answered[AnswerT]] = field(default_factory=asyncio.Future)


class DynamicBatches(Generic[RequestT, AnswerT]):
    """Passes over batches of requests, one at a time, in a thread of their own.

    Consumes: what `submit` brings, oldest first. Waits for: the pass before; then, if several clients were there
    during that one, up to `window_s` until as many wait again (a client that is alone gains nothing from waiting).
    Unblocked by: `submit`. Stops when: `close`.
    """

    def __init__(
        self,
        run: Callable[[Sequence[RequestT]], Sequence[AnswerT]],
        max_batch: int,
        window_s: float,
        on_failure: Callable[[BaseException], None] = lambda error: None,
    ) -> None:
        """`run` answers a batch, in the thread. When it raises, all of its batch end with
        PolicyError("engine_failed"), and `on_failure` is told."""
        self._run, self._on_failure = run, on_failure
        self._max_batch, self._window_s = max_batch, window_s
        self._numbers = itertools.count()
        self._waiting: OrderedDict[int, _Waiting[RequestT, AnswerT]] = OrderedDict()
        self._running: dict[int, _Waiting[RequestT, AnswerT]] = {}
        self._came = asyncio.Event()
        self._enough = 1  # requests in the last pass and those that came meanwhile: so many clients ask at a time
        self._thread = ThreadPoolExecutor(1, "chunk-engine")
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def held(self) -> list[RequestT]:
        """Requests in the running pass, then those that wait, oldest first."""
        return [entry.request for entry in (*self._running.values(), *self._waiting.values())]

    async def submit(self, request: RequestT, deadline_s: float) -> Answered[AnswerT]:
        """Raises PolicyError: "deadline_exceeded" after `deadline_s` seconds, "engine_failed", "unavailable" after
        `close`. A caller that is cancelled or late leaves before its pass; a pass that runs is finished without it."""
        if self._closed:
            raise PolicyError("unavailable", "the engine was closed: try again")
        number = next(self._numbers)
        entry = _Waiting[RequestT, AnswerT](request, time.perf_counter())
        self._waiting[number] = entry
        self._came.set()
        if self._task is None:
            self._task = asyncio.create_task(self._loop())
        try:
            async with asyncio.timeout(deadline_s):
                return await entry.answer
        except TimeoutError:
            message = f"no answer within {deadline_s:.3g} s; raise the deadline, or add replicas"
            raise PolicyError("deadline_exceeded", message) from None
        finally:
            self._waiting.pop(number, None)

    async def between_passes(self, function: Callable[[], ResultT]) -> ResultT:
        """Runs `function` in the thread, while no pass runs. It is done to its end even if the caller is cancelled."""
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._thread, function))

    async def close(self) -> None:
        """Ends the loop; who waits is answered with a failure. A pass that runs is waited for."""
        self._closed = True
        left = [*self._running.values(), *self._waiting.values()]
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._fail(left, PolicyError("unavailable", "the engine ends: try again"))
        await asyncio.to_thread(self._thread.shutdown)

    async def _loop(self) -> None:
        while True:
            await self._until(1)
            if self._enough > 1 and len(self._waiting) < self._enough:
                await self._fill()
            if self._waiting:  # whoever waited may have left
                await self._pass()

    async def _fill(self) -> None:
        try:
            async with asyncio.timeout(self._window_s):
                await self._until(self._enough)
        except TimeoutError:
            return  # fewer clients than before: their requests go now

    async def _until(self, waiting: int) -> None:
        while len(self._waiting) < waiting:
            self._came.clear()
            await self._came.wait()

    async def _pass(self) -> None:
        numbers = list(itertools.islice(self._waiting, self._max_batch))
        self._running = {number: self._waiting.pop(number) for number in numbers}
        batch = list(self._running.values())
        began_s = time.perf_counter()
        try:
            requests = [entry.request for entry in batch]
            answers = await asyncio.get_running_loop().run_in_executor(self._thread, self._run, requests)
            self._tell(batch, answers, began_s)
        except Exception as error:
            self._on_failure(error)
            self._fail(batch, PolicyError("engine_failed", f"the engine failed in a forward pass: {error!r}"))
        finally:
            self._running = {}
            self._enough = min(self._max_batch, len(batch) + len(self._waiting))

    @staticmethod
    def _tell(batch: Sequence[_Waiting[RequestT, AnswerT]], answers: Sequence[AnswerT], began_s: float) -> None:
        infer_ms = (time.perf_counter() - began_s) * 1e3
        for entry, answer in zip(batch, answers, strict=True):
            if not entry.answer.done():
                entry.answer.set_result(Answered(answer, (began_s - entry.arrived_s) * 1e3, infer_ms))

    @staticmethod
    def _fail(entries: Sequence[_Waiting[RequestT, AnswerT]], error: PolicyError) -> None:
        for entry in entries:
            if not entry.answer.done():
                entry.answer.set_exception(error)
