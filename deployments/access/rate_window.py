"""What one model of a provider may be sent now: requests and tokens of the last minute, and calls under way. Pure."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from configs.providers import ModelLimits

WINDOW_S = 60.0


@dataclass(slots=True)
class Sent:
    """One call in the window: when it was allowed, and the tokens that it counts."""

    at_s: float
    tokens: int


@dataclass(frozen=True, slots=True)
class Running:
    """A call that holds one of the concurrent places, at the latest until `expires_s`: its holder may have died."""

    sent: Sent
    expires_s: float


class RateWindow:
    """A sliding window: of any 60 seconds, however they lie, at most the limit is used.

    A call is allowed with an estimate of its tokens (`take`), and ends with the real number (`settle`), with none where
    that is unknown (`release`: the estimate stays), or as one that was never sent (`cancel`: it counts for nothing).
    `clock`: seconds, never going back. Not for several threads.
    """

    def __init__(self, limits: ModelLimits, clock: Callable[[], float], window_s: float = WINDOW_S) -> None:
        self.limits = limits
        self._clock = clock
        self._window_s = window_s
        self._sent: deque[Sent] = deque()  # in the order of time
        self._running: dict[str, Running] = {}
        self._closed_until_s = -math.inf

    def fits(self, tokens: int) -> bool:
        """Whether a call of so many tokens can ever be allowed."""
        return not self.limits.tokens_per_minute or tokens <= self.limits.tokens_per_minute

    def wait_s(self, tokens: int) -> float:
        """Seconds until a call of so many tokens may be allowed, if nothing else happens; 0: now."""
        now_s = self._forget()
        waits = (self._wait_for_place_s(now_s), self._wait_in_window_s(now_s, tokens), self._closed_until_s - now_s)
        return max(0.0, *waits)

    def least_wait_s(self) -> float:
        """Seconds for which no call is allowed, whatever calls may end meanwhile or use less than expected."""
        now_s, limit = self._forget(), self.limits.requests_per_minute
        over = len(self._sent) - limit if limit else -1
        wait_s = self._sent[over].at_s + self._window_s - now_s if over >= 0 else 0.0
        return max(0.0, wait_s, self._closed_until_s - now_s)

    def take(self, ticket: str, tokens: int, lease_s: float) -> None:
        """Counts a call that begins now, for which `wait_s` said 0. Its place is free again after `lease_s` at the
        latest."""
        sent = Sent(self._clock(), tokens)
        self._sent.append(sent)
        self._running[ticket] = Running(sent, sent.at_s + lease_s)

    def settle(self, ticket: str, tokens: int) -> None:
        """The call ended and used so many tokens. A ticket that is unknown (its lease ended) changes nothing."""
        if (running := self._running.pop(ticket, None)) is not None:
            running.sent.tokens = tokens

    def release(self, ticket: str) -> None:
        """The call ended and nobody knows what it used."""
        self._running.pop(ticket, None)

    def cancel(self, ticket: str) -> None:
        """The call was never sent."""
        if (running := self._running.pop(ticket, None)) is not None:
            self._sent = deque(sent for sent in self._sent if sent is not running.sent)

    def close(self, seconds: float) -> None:
        """Allows nothing for so long: the provider said that it takes no more, or what was sent before is unknown."""
        self._closed_until_s = max(self._closed_until_s, self._clock() + seconds)

    def headers(self) -> tuple[tuple[str, str], ...]:
        """The state as `x-ratelimit-*` headers; a limit that is not set has none. Reset: when all of it is free."""
        now_s = self._forget()
        found: list[tuple[str, str]] = []
        reset_s = max(self._closed_until_s, self._sent[-1].at_s + self._window_s if self._sent else now_s) - now_s
        for unit, limit, used in (
            ("requests", self.limits.requests_per_minute, len(self._sent)),
            ("tokens", self.limits.tokens_per_minute, sum(sent.tokens for sent in self._sent)),
        ):
            if limit:
                found += [
                    (f"x-ratelimit-limit-{unit}", str(limit)),
                    (f"x-ratelimit-remaining-{unit}", str(max(0, limit - used))),
                    (f"x-ratelimit-reset-{unit}", f"{math.ceil(max(0.0, reset_s))}s"),
                ]
        return tuple(found)

    def _forget(self) -> float:
        """Drops what no longer counts; the time now."""
        now_s = self._clock()
        while self._sent and self._sent[0].at_s + self._window_s <= now_s:
            self._sent.popleft()
        for ticket in [ticket for ticket, running in self._running.items() if running.expires_s <= now_s]:
            del self._running[ticket]
        return now_s

    def _wait_for_place_s(self, now_s: float) -> float:
        """Until a lease ends, at the latest; a call that ends before frees its place."""
        places = self.limits.concurrent_requests
        if not places or len(self._running) < places:
            return 0.0
        ends = sorted(running.expires_s for running in self._running.values())
        return ends[len(ends) - places] - now_s

    def _wait_in_window_s(self, now_s: float, tokens: int) -> float:
        """Until enough of the oldest calls have left the window."""
        requests_left = self.limits.requests_per_minute or math.inf
        tokens_left = self.limits.tokens_per_minute or math.inf
        requests, used = len(self._sent) + 1, sum(sent.tokens for sent in self._sent) + tokens
        wait_s = 0.0
        for sent in self._sent:
            if requests <= requests_left and used <= tokens_left:
                break
            requests, used = requests - 1, used - sent.tokens
            wait_s = sent.at_s + self._window_s - now_s
        return wait_s
