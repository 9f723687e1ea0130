"""Whether a process that is alive still answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any


class Heartbeat:
    """Keeps one question on its way to vLLM's engine process. It passes the thread that reads requests, the loop that
    computes, and the thread that sends answers: when one of them is dead or stuck, no answer comes back, although the
    process is there and vLLM calls itself healthy."""

    def __init__(
        self, ask: Callable[[], Coroutine[Any, Any, object]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ask = ask
        self._clock = clock
        self._question: asyncio.Task[object] | None = None
        self._since = clock()

    def silent_s(self) -> float:
        """Seconds for which the question on its way has been waiting; asks the next one when it was answered."""
        if self._question is not None and self._question.done() and not self._question.cancelled():
            self._question.exception()  # an answer too; a dead engine is noticed elsewhere
            self._question = None
        if self._question is None:
            self._question, self._since = asyncio.create_task(self._ask()), self._clock()
        return self._clock() - self._since

    def excuse(self) -> None:
        """The wait so far does not count."""
        self._since = self._clock()
