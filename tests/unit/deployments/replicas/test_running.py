"""A request ends when its caller leaves, and does not begin after its deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from deployments.protocol.generate import GenerateFailure, GenerateRequest, GenerateResult
from deployments.replicas.running import REMEMBERED, Running

RESULT = GenerateResult("r", [1], [0.0], 0, "stop")


class Work:
    """One answer that takes until it is told to end; knows whether it was begun and whether it was cancelled."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.cancelled = False
        self.request: GenerateRequest | None = None

    async def __call__(self, request: GenerateRequest) -> GenerateResult:
        self.request = request
        self.begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return RESULT


async def test_an_abandoned_request_is_cancelled_down_to_its_work_and_ends_as_a_failure() -> None:
    running, work = Running(), Work()
    task = asyncio.create_task(running.answer(GenerateRequest("r", [1]), work))
    await work.begun.wait()
    running.abandon(["r"])
    answer = await task
    assert work.cancelled
    assert isinstance(answer, GenerateFailure)
    assert answer.kind == "cancelled"
    assert len(running) == 0


async def test_a_neighbour_of_an_abandoned_request_goes_on() -> None:
    running, work = Running(), Work()
    task = asyncio.create_task(running.answer(GenerateRequest("neighbour", [1]), work))
    await work.begun.wait()
    running.abandon(["r"])
    await asyncio.sleep(0)
    assert not work.cancelled
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_cancelled_call_is_no_answer() -> None:
    running, work = Running(), Work()
    task = asyncio.create_task(running.answer(GenerateRequest("r", [1]), work))
    await work.begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(running) == 0


async def test_a_request_that_arrives_after_its_caller_left_is_not_begun() -> None:
    running, work = Running(), Work()
    running.abandon(["r"])
    answer = await running.answer(GenerateRequest("r", [1]), work)
    assert isinstance(answer, GenerateFailure)
    assert answer.kind == "cancelled"
    assert not work.begun.is_set()


async def test_a_request_that_waited_past_its_deadline_is_refused_and_not_worked_off() -> None:
    running, work = Running(clock=lambda: 1000.0), Work()
    late = GenerateRequest("r", [1], deadline_s=60.0, deadline_unix_s=999.0)
    answer = await running.answer(late, work)
    assert isinstance(answer, GenerateFailure)
    assert answer.kind == "deadline_exceeded"
    assert not work.begun.is_set()


async def test_the_work_gets_the_time_that_is_left() -> None:
    running = Running(clock=lambda: 1000.0)
    seen = []

    async def work(request: GenerateRequest) -> GenerateResult:
        seen.append(request.deadline_s)
        return RESULT

    await running.answer(GenerateRequest("r", [1], deadline_s=60.0, deadline_unix_s=1010.0), work)
    await running.answer(GenerateRequest("s", [1], deadline_s=60.0), work)
    assert seen == [10.0, 60.0]


def test_the_memory_of_callers_who_left_is_bounded() -> None:
    running = Running()
    running.abandon(f"r{i}" for i in range(2 * REMEMBERED))
    assert len(running._departed) == REMEMBERED


async def test_the_pieces_of_a_request_come_before_its_answer_and_those_of_one_moment_together() -> None:
    go_on = asyncio.Event()

    async def work(request: GenerateRequest, emit: Callable[[str], None]) -> str:
        emit(f"{request.request_id} 1")
        await go_on.wait()
        emit(f"{request.request_id} 2")
        return f"{request.request_id} end"

    placed = Running().pieces_as_ready([GenerateRequest(name, [1]) for name in "ab"], work)
    assert await anext(placed) == [(0, "a 1"), (1, "b 1")]
    go_on.set()
    assert [each async for some in placed for each in some] == [(0, "a 2"), (0, "a end"), (1, "b 2"), (1, "b end")]


async def test_a_request_that_is_refused_has_no_pieces_and_its_neighbour_has() -> None:
    async def work(request: GenerateRequest, emit: Callable[[str], None]) -> str:
        emit("piece")
        return "end"

    requests = [GenerateRequest("late", [1], deadline_unix_s=0.0), GenerateRequest("b", [1])]
    got = [each async for some in Running().pieces_as_ready(requests, work) for each in some]
    assert got[1:] == [(1, "piece"), (1, "end")]
    assert isinstance(got[0][1], GenerateFailure)
    assert got[0][1].kind == "deadline_exceeded"
