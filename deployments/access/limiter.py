"""Who is next: the queues before the rate limits of all models, first come first served. asyncio, no ray."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from configs.providers import ModelLimits
from deployments.access.rate_window import WINDOW_S, RateWindow

MOST_WAITING = 1024  # calls of one model


@dataclass(frozen=True, slots=True)
class Ask:
    """A call that wants to be made. `ticket`: a name of its own, with which it is ended. `tokens`: the most that it is
    expected to use. `wait_s`: the longest wait for permission; `lease_s`: the longest time from then to its end."""

    ticket: str
    model: str
    limits: ModelLimits
    tokens: int
    wait_s: float
    lease_s: float


@dataclass(frozen=True, slots=True)
class Allowed:
    """The call may be made now, and must be ended."""

    ticket: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The call may not be made in time. `kind`: a key of `errors.TABLE`."""

    kind: str
    message: str
    retry_after_s: float | None = None
    rate_limit: tuple[tuple[str, str], ...] = ()


class Usage:
    """What a permitted call says about itself before it ends. `tokens`: what it used, None where nobody knows."""

    def __init__(self) -> None:
        self.tokens: int | None = None


class CallLimits(Protocol):
    """What holds back the calls of one model. Implemented by `provider_limits.ProviderLimits`."""

    def permission(self, tokens: int, deadline_unix_s: float, lease_s: float) -> AbstractAsyncContextManager[Usage]:
        """Waits for permission to make a call that may use so many tokens, and gives its place back at the end.

        `lease_s`: the longest time that the call may take. Raises PolicyError "overloaded" with `retry_after_s` when no
        permission comes in time, "too_large" when it never can, "unavailable" when the limiter does not answer.
        """

    def refused_by_provider(self, seconds: float) -> None:
        """The provider answered that it takes no more for so long."""


class Limiter:
    """The limits of all models. Each ask brings the limits it knows: the newest ones hold, whatever was before.

    `closed_for_s`: nothing is allowed for so long after the start: a limiter that takes the place of a lost one does
    not know what that one allowed.
    """

    def __init__(
        self,
        closed_for_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        window_s: float = WINDOW_S,
    ) -> None:
        self._clock = clock
        self._window_s = window_s
        self._closed_until_s = clock() + closed_for_s
        self._lanes: dict[str, _Lane] = {}
        self._asking: dict[str, asyncio.Task[object]] = {}  # ticket -> who waits for it

    async def acquire(self, ask: Ask) -> Allowed | Refused:
        """Waits its turn, at most `ask.wait_s`. Cancelling the wait gives up the place in the queue."""
        lane = self._lane(ask)
        if not lane.window.fits(ask.tokens):
            limit = ask.limits.tokens_per_minute
            return Refused("too_large", f"{ask.model}: {ask.tokens} tokens are over its limit of {limit} per minute")
        task = asyncio.current_task()
        assert task is not None
        self._asking[ask.ticket] = task
        try:
            return await lane.acquire(ask)
        finally:
            del self._asking[ask.ticket]

    def settle(self, model: str, ticket: str, tokens: int | None) -> None:
        """The call ended; `tokens`: what it used, None where that is not known. Unknown names change nothing."""
        lane = self._lanes.get(model)
        if lane is None:  # of a limiter that was here before
            return
        if tokens is None:
            lane.window.release(ticket)
        else:
            lane.window.settle(ticket, tokens)
        lane.changed.set()

    def cancel(self, model: str, ticket: str) -> None:
        """The call is not made, whether it still waits or is allowed already."""
        if (task := self._asking.get(ticket)) is not None:
            task.cancel()
        elif (lane := self._lanes.get(model)) is not None:
            lane.window.cancel(ticket)
            lane.changed.set()

    def close(self, model: str, seconds: float) -> None:
        """The provider refuses calls of this model for so long."""
        if (lane := self._lanes.get(model)) is not None:
            lane.window.close(seconds)

    def _lane(self, ask: Ask) -> _Lane:
        lane = self._lanes.get(ask.model)
        if lane is None:
            lane = self._lanes[ask.model] = _Lane(RateWindow(ask.limits, self._clock, self._window_s), self._clock)
            lane.window.close(self._closed_until_s - self._clock())
        if lane.window.limits != ask.limits:
            lane.window.limits = ask.limits
            lane.changed.set()
        return lane


class _Lane:
    """The queue before one model: who holds the lock is next, and waits for the window."""

    def __init__(self, window: RateWindow, clock: Callable[[], float]) -> None:
        self.window = window
        self.changed = asyncio.Event()
        self._clock = clock
        self._turn = asyncio.Lock()  # asyncio's lock is fair
        self._waiting = 0

    async def acquire(self, ask: Ask) -> Allowed | Refused:
        deadline_s = self._clock() + ask.wait_s
        if self._waiting >= MOST_WAITING:
            return self._refused(ask, f"{MOST_WAITING} calls of {ask.model} wait already")
        self._waiting += 1
        try:
            async with asyncio.timeout(max(0.0, ask.wait_s)), self._turn:
                return await self._in_turn(ask, deadline_s)
        except TimeoutError:
            return self._refused(ask, f"{ask.model} is at its rate limit")
        finally:
            self._waiting -= 1

    async def _in_turn(self, ask: Ask, deadline_s: float) -> Allowed | Refused:
        while True:
            self.changed.clear()
            wait_s = self.window.wait_s(ask.tokens)
            if wait_s <= 0:
                self.window.take(ask.ticket, ask.tokens, ask.lease_s)
                return Allowed(ask.ticket)
            left_s = deadline_s - self._clock()
            if left_s <= 0 or self.window.least_wait_s() > left_s:
                return self._refused(ask, f"{ask.model} is at its rate limit")
            await self._change(min(wait_s, left_s))

    async def _change(self, seconds: float) -> None:
        """Returns when a call ended or the limits changed, at the latest after `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                await self.changed.wait()
        except TimeoutError:
            return

    def _refused(self, ask: Ask, message: str) -> Refused:
        wait_s = self.window.wait_s(ask.tokens) or None
        return Refused("overloaded", f"{message}: try again later", wait_s, self.window.headers())
