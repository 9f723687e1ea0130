"""A replica that has learnt how slow its engine is, in no time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import ModuleType

import pytest

from deployments.replicas.backlog import Backlog

ANSWER_S = 10.0


class SlowClock:
    """Patches the backlog of a replica's module to go by `now`."""

    def __init__(self, module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(module, "Backlog", lambda seats: Backlog(seats, lambda: self.now))

    async def teach(
        self, ask: Callable[[str], Awaitable[object]], arrived: asyncio.Event, answering: asyncio.Event
    ) -> None:
        """Three requests one after the other, each answered after ANSWER_S. Then nothing is answered."""
        for number in range(3):
            arrived.clear()
            answering.clear()
            asking = asyncio.ensure_future(ask(f"slow-{number}"))
            await arrived.wait()
            self.now += ANSWER_S
            answering.set()
            await asking
        arrived.clear()
        answering.clear()
