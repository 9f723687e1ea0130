"""Calls under way in a replica whose clients may send a request again under the same id. No Ray."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Iterable
from typing import Any, TypeVar

from deployments.protocol.generate import GenerateFailure

AnswerT = TypeVar("AnswerT")

REMEMBERED = 1024


class Calls:
    """By the id of their request, oldest first: several calls of one id are several tries of one client.

    A caller that leaves is told to the replica twice, in either order: Serve cancels its call, and `abandon` names its
    id. Both mean the same call, and must not end the next try.
    """

    def __init__(self) -> None:
        self._calls: dict[str, list[asyncio.Task[Any]]] = {}
        self._abandoned: set[asyncio.Task[Any]] = set()
        self._cancelled = Counter[str]()  # calls that Serve cancelled, and whose `abandon` may still come

    def __len__(self) -> int:
        return sum(map(len, self._calls.values()))

    async def answer(self, request_id: str, work: Awaitable[AnswerT]) -> AnswerT | GenerateFailure:
        """Awaits `work` in the calling task. An abandoned call ends as a failure, a cancelled one as CancelledError."""
        call = asyncio.current_task()
        assert call is not None
        self._calls.setdefault(request_id, []).append(call)
        try:
            return await work
        except asyncio.CancelledError:
            if call not in self._abandoned:
                self._remember(request_id)
                raise
            call.uncancel()
            return GenerateFailure(request_id, "cancelled", "the caller left before the answer was ready")
        finally:
            self._abandoned.discard(call)
            self._calls[request_id].remove(call)
            if not self._calls[request_id]:
                del self._calls[request_id]

    def _remember(self, request_id: str) -> None:
        self._cancelled[request_id] += 1
        if len(self._cancelled) > REMEMBERED:
            del self._cancelled[next(iter(self._cancelled))]

    def abandon(self, request_ids: Iterable[str]) -> None:
        """The caller of each of these requests left: its first call ends, unless Serve has ended it before."""
        for request_id in request_ids:
            if self._cancelled[request_id] > 0:
                self._cancelled -= Counter([request_id])
                continue
            for call in self._calls.get(request_id, [])[:1]:
                self._abandoned.add(call)
                call.cancel()
