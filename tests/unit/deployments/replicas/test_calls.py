from __future__ import annotations

import asyncio

import pytest

from deployments.protocol.generate import GenerateFailure
from deployments.replicas.calls import REMEMBERED, Calls


class Tries:
    """Calls of one id, each waiting until `go` is set."""

    def __init__(self, calls: Calls) -> None:
        self.calls, self.go = calls, asyncio.Event()

    async def begin(self) -> asyncio.Task[object]:
        async def work() -> str:
            await self.go.wait()
            return "answered"

        task = asyncio.create_task(self.calls.answer("r", work()))
        await asyncio.sleep(0)
        return task


async def test_an_abandoned_call_ends_as_a_failure_and_the_next_try_is_answered() -> None:
    calls = Calls()
    tries = Tries(calls)
    first, second = await tries.begin(), await tries.begin()
    calls.abandon(["r", "unknown"])
    left = await first
    assert isinstance(left, GenerateFailure)
    assert (left.request_id, left.kind) == ("r", "cancelled")
    tries.go.set()
    assert await second == "answered"
    assert len(calls) == 0


async def test_a_caller_that_leaves_is_told_twice_and_its_next_try_is_answered() -> None:
    """Serve cancels the call, then its id is abandoned: by then the client's next try is the first of that id."""
    calls = Calls()
    tries = Tries(calls)
    first, second = await tries.begin(), await tries.begin()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    calls.abandon(["r"])
    tries.go.set()
    assert await second == "answered"


async def test_the_next_caller_that_leaves_is_taken_at_its_word() -> None:
    calls = Calls()
    tries = Tries(calls)
    first, second = await tries.begin(), await tries.begin()
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    calls.abandon(["r"])
    calls.abandon(["r"])
    assert isinstance(await second, GenerateFailure)


async def test_what_is_remembered_of_callers_who_left_is_bounded() -> None:
    calls = Calls()
    for number in range(2 * REMEMBERED):
        task = asyncio.create_task(calls.answer(str(number), asyncio.Event().wait()))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert len(calls._cancelled) <= REMEMBERED
