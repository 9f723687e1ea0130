"""A thread for the calls of one environment that blocks."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

Result = TypeVar("Result")


class CallThread:
    """One thread that runs calls one after another: simulators want all calls from the thread that made them.

    A daemon: a call that never returns must not keep the process from ending, as a thread of an executor would.
    """

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()

    async def run(self, function: Callable[[], Result]) -> Result:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()

        def call() -> None:
            try:
                result = function()
            except BaseException as error:  # carried to the caller
                _from_thread(loop, future, future.set_exception, error)
            else:
                _from_thread(loop, future, future.set_result, result)

        self._calls.put(call)
        return await future

    def later(self, function: Callable[[], object]) -> None:
        """A call whose outcome nobody waits for."""

        def call() -> None:
            with contextlib.suppress(Exception):  # nobody is left to be told
                function()

        self._calls.put(call)

    def end(self) -> None:
        """After the calls that were given so far."""
        self._calls.put(None)


def _from_thread(
    loop: asyncio.AbstractEventLoop, future: asyncio.Future[Any], settle: Callable[[Any], None], value: Any
) -> None:
    def deliver() -> None:
        if not future.done():  # else the caller has given up
            settle(value)

    if not loop.is_closed():
        loop.call_soon_threadsafe(deliver)
