"""Calls that travel together do not wait for each other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from deployments.client.batcher import Batcher
from deployments.errors import PolicyError


async def test_a_short_answer_of_a_batch_does_not_wait_for_a_long_one() -> None:
    go_on = asyncio.Event()

    async def send(items: list[str]) -> AsyncIterator[list[tuple[int, str]]]:
        yield [(items.index("short"), "first")]
        await go_on.wait()
        yield [(items.index("long"), "second")]

    batcher = Batcher(send, window_s=10.0, max_batch=2)
    long = asyncio.create_task(batcher("long", 60.0))
    assert await batcher("short", 60.0) == "first"
    assert not long.done()
    go_on.set()
    assert await long == "second"


async def test_answers_that_never_come_may_be_asked_for_again() -> None:
    async def send(items: list[str]) -> AsyncIterator[list[tuple[int, str]]]:
        yield [(0, "answer")]

    batcher = Batcher(send, window_s=10.0, max_batch=2)
    answers = await asyncio.gather(batcher("a", 60.0), batcher("b", 60.0), return_exceptions=True)
    assert answers[0] == "answer"
    assert isinstance(answers[1], PolicyError)
    assert answers[1].kind == "unavailable"


async def test_a_caller_waits_no_longer_than_its_deadline() -> None:
    async def send(items: list[str]) -> AsyncIterator[list[tuple[int, str]]]:
        await asyncio.Event().wait()
        yield []

    batcher = Batcher(send, window_s=0.0, max_batch=2, margin_s=0.0)
    with pytest.raises(PolicyError, match=r"no answer from a replica within 0\.01 s"):
        await batcher("item", deadline_s=0.01)
