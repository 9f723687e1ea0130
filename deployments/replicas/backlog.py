"""How long a new request would wait in a replica, and the refusal of one that would wait in vain. No Ray."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from deployments.errors import PolicyError

# Of what a request has left. The estimate is a mean, and the answer has a way to go: at 1 the typical answer would be
# ready when its deadline passes.
SHARE = 0.5


class Backlog:
    """The requests that an engine has, and how fast they leave it.

    Under more load than the engine can take, whoever waits longest is served next, and has the least time left: in the
    end every answer comes too late. So a request is refused at once, with PolicyError("overloaded"), if it would
    probably wait in vain: with n requests there, which leave at r per second, the next one leaves after (n + 1) / r
    seconds (Little's law). `r` is measured only while the engine is full, and a request that finds a free seat is never
    refused: of an engine that is not full, `r` says how many ask, not how many it can take.
    """

    def __init__(self, seats: int, clock: Callable[[], float] = time.monotonic) -> None:
        """`seats`: requests that the engine works on at the same time. `clock` is in seconds."""
        self._seats = seats
        self._clock = clock
        self._held = 0
        self._full_s = 0.0  # how long the engine has been full, in all
        self._full_since: float | None = None
        self._left: deque[float] = deque(maxlen=2 * seats)  # when requests left the full engine, by `_full_s`

    def __len__(self) -> int:
        return self._held

    def expected_s(self) -> float:
        """Seconds until a request that comes now is answered; 0 where nothing is known, or a seat is free."""
        if self._held < self._seats or len(self._left) <= self._seats:
            return 0.0
        return (self._held + 1) * (self._left[-1] - self._left[0]) / (len(self._left) - 1)

    def check(self, remaining_s: float) -> None:
        """Raises PolicyError("overloaded") for a request that has `remaining_s` left and would wait in vain."""
        expected_s = self.expected_s()
        if expected_s > SHARE * remaining_s:
            message = (
                f"{self._held} requests are before this one, which would take about {expected_s:.3g} s of the "
                f"{remaining_s:.3g} s that it has left: try again later"
            )
            raise PolicyError("overloaded", message, retry_after_s=expected_s)

    @contextmanager
    def place(self, remaining_s: float) -> Iterator[None]:
        """Around the engine's work on a request that has `remaining_s` left. Raises PolicyError; see `check`."""
        self.check(remaining_s)
        self._come()
        try:
            yield
        finally:
            self._leave()

    def _come(self) -> None:
        self._held += 1
        if self._held == self._seats:
            self._full_since = self._clock()

    def _leave(self) -> None:
        self._held -= 1
        if self._full_since is None:
            return
        now = self._clock()
        self._full_s += now - self._full_since
        self._full_since = now if self._held >= self._seats else None
        self._left.append(self._full_s)
