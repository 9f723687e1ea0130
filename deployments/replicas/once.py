"""Answers that are given once: the same question again, sent by a client that gave up waiting, gets the same answer."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

AnswerT = TypeVar("AnswerT")


@dataclass(slots=True)
class _Answer(Generic[AnswerT]):
    task: asyncio.Task[AnswerT]
    callers: int = 0
    kept_until_s: float = float("inf")  # while it is worked on


class Once(Generic[AnswerT]):
    """Answers by key, also while they are worked on. `clock` is in seconds."""

    def __init__(
        self,
        keep: Callable[[AnswerT], bool],
        window_s: float = 60.0,
        most: int = 1024,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """An answer for which `keep` is true is given again for `window_s` seconds, unless `most` newer ones came;
        another one (a failure that may pass) is forgotten at once."""
        self._keep, self._window_s, self._most, self._clock = keep, window_s, most, clock
        self._answers: OrderedDict[str, _Answer[AnswerT]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._answers)

    async def answer(self, key: str, work: Callable[[], Awaitable[AnswerT]]) -> AnswerT:
        """The answer of this key, from `work` if there is none. Work ends when the last of its callers was cancelled.
        Whoever waited for another's work that is not kept does its own."""
        self._forget_old()
        while (known := self._answers.get(key)) is not None:
            answer = await self._wait(key, known)
            if self._keep(answer):
                return answer
        self._answers[key] = own = _Answer(asyncio.ensure_future(_run(work)))
        return await self._wait(key, own)

    async def _wait(self, key: str, entry: _Answer[AnswerT]) -> AnswerT:
        entry.callers += 1
        kept = False
        try:
            answer = await asyncio.shield(entry.task)
            kept = self._keep(answer)
            if kept and entry.kept_until_s == float("inf"):
                entry.kept_until_s = self._clock() + self._window_s
            return answer
        finally:
            entry.callers -= 1
            if not entry.task.done() and not entry.callers:
                entry.task.cancel()
            if not kept and (entry.task.done() or not entry.callers) and self._answers.get(key) is entry:
                del self._answers[key]

    def _forget_old(self) -> None:
        now_s = self._clock()
        while self._answers:
            key, oldest = next(iter(self._answers.items()))
            if oldest.kept_until_s > now_s and len(self._answers) <= self._most:
                return
            if not oldest.task.done():
                return  # its callers bound it
            del self._answers[key]


async def _run(work: Callable[[], Awaitable[AnswerT]]) -> AnswerT:
    return await work()
