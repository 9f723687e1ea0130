"""The freshest observation wins: what one session asks while it is being answered is answered from the newest of it."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from deployments.errors import PolicyError


class Identified(Protocol):
    @property
    def request_id(self) -> str: ...


Q = TypeVar("Q", bound=Identified)
A = TypeVar("A")


@dataclass(slots=True, eq=False)
class _Waiter(Generic[Q, A]):
    request: Q
    answered: asyncio.Future[tuple[A, Q]]


@dataclass(slots=True, eq=False)
class _Line(Generic[Q, A]):
    """`asked`: who gets the answer that is being made, the newest last. `waiting`: who came since."""

    asked: list[_Waiter[Q, A]] = field(default_factory=list)
    waiting: list[_Waiter[Q, A]] = field(default_factory=list)
    running: asyncio.Task[A] | None = None


class Freshest(Generic[Q, A]):
    """At most one inference at a time for each key.

    Requests that arrive while one runs wait for its end. Then the newest of them is inferred, and its answer goes to
    all that waited. So a request waits for two inferences at most and none starves, however fast observations come;
    and an observation that is already old when its turn comes costs no inference. The answer of an inference goes only
    to the requests that it was started for: one that came later never gets it, unless it repeats their request_id.

    Who waits for whom: a caller waits for its own future. The inference is a task of its own that waits for nothing
    here; its end unblocks its callers and starts the next. It is cancelled when its last caller has left.
    """

    def __init__(self) -> None:
        self._lines: dict[Hashable, _Line[Q, A]] = {}

    def __len__(self) -> int:
        """Keys with something under way."""
        return len(self._lines)

    async def answer(self, key: Hashable, request: Q, infer: Callable[[Sequence[Q]], Awaitable[A]]) -> tuple[A, Q]:
        """(the answer, the request that was inferred: this one or a newer one). `infer` gets the requests that its
        answer is for, the newest last. Raises what `infer` raises."""
        line = self._lines.setdefault(key, _Line())
        waiter: _Waiter[Q, A] = _Waiter(request, asyncio.get_running_loop().create_future())
        if self._repeats(line, request):
            line.asked.insert(0, waiter)
        else:
            line.waiting.append(waiter)
        if line.running is None:
            self._start(key, line, infer)
        try:
            return await waiter.answered
        except asyncio.CancelledError:
            self._leave(line, waiter)
            raise

    def _start(self, key: Hashable, line: _Line[Q, A], infer: Callable[[Sequence[Q]], Awaitable[A]]) -> None:
        line.asked, line.waiting = line.waiting, []
        requests = [waiter.request for waiter in line.asked]

        async def inferred() -> A:
            return await infer(requests)

        # A context of its own: the inference belongs to all its callers, and must not be cancelled or logged as part of
        # the one request in whose context it happened to start.
        line.running = asyncio.get_running_loop().create_task(inferred(), context=contextvars.Context())
        line.running.add_done_callback(lambda task: self._finish(key, line, infer, task))

    def _finish(
        self,
        key: Hashable,
        line: _Line[Q, A],
        infer: Callable[[Sequence[Q]], Awaitable[A]],
        task: asyncio.Task[A],
    ) -> None:
        newest = line.asked[-1].request
        error = PolicyError("cancelled", "the inference was cancelled") if task.cancelled() else task.exception()
        for waiter in line.asked:
            if waiter.answered.done():  # its caller left
                continue
            if error is not None:
                waiter.answered.set_exception(error)
            else:
                waiter.answered.set_result((task.result(), newest))
        line.asked, line.running = [], None
        if line.waiting:
            self._start(key, line, infer)
        else:
            del self._lines[key]

    @staticmethod
    def _repeats(line: _Line[Q, A], request: Q) -> bool:
        """Whether this is a retry of what is being inferred, for somebody who still waits."""
        wanted = any(not waiter.answered.done() for waiter in line.asked)
        return wanted and line.asked[-1].request.request_id == request.request_id

    @staticmethod
    def _leave(line: _Line[Q, A], waiter: _Waiter[Q, A]) -> None:
        if waiter in line.waiting:
            line.waiting.remove(waiter)
        elif line.running is not None and all(other.answered.done() for other in line.asked):
            line.running.cancel()
