"""Answers in the order of the requests, while reading goes on; tested with events, on a real loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from deployments.transports.in_order import by_size, in_order


class Requests:
    """A stream that a test feeds; `read` counts what was taken from it."""

    def __init__(self) -> None:
        self._waiting: asyncio.Queue[int | BaseException | None] = asyncio.Queue()
        self.read = 0

    def send(self, *requests: int | BaseException | None) -> None:
        for request in requests:
            self._waiting.put_nowait(request)

    async def __aiter__(self) -> AsyncIterator[int]:
        while (request := await self._waiting.get()) is not None:
            if isinstance(request, BaseException):
                raise request
            self.read += 1
            yield request


class Answers:
    """Answers request i once `let(i)` was called."""

    def __init__(self) -> None:
        self._events: dict[int, asyncio.Event] = {}
        self.begun: list[int] = []
        self.cancelled: list[int] = []

    def let(self, *requests: int) -> None:
        for request in requests:
            self._event(request).set()

    def _event(self, request: int) -> asyncio.Event:
        return self._events.setdefault(request, asyncio.Event())

    async def __call__(self, request: int) -> str:
        self.begun.append(request)
        try:
            await self._event(request).wait()
        except asyncio.CancelledError:
            self.cancelled.append(request)
            raise
        if request < 0:
            raise ValueError(f"no answer to {request}")
        return f"answer {request}"


async def until(condition: object) -> None:
    """Lets everything run that can; fails the test where the condition stays false."""
    for _ in range(100):
        if condition():  # type: ignore[operator]
            return
        await asyncio.sleep(0)
    raise AssertionError("it did not happen")


async def turns() -> None:
    """Lets everything run that can."""
    for _ in range(100):
        await asyncio.sleep(0)


async def test_a_later_answer_waits_for_the_earlier_one_although_it_is_ready() -> None:
    requests, answers = Requests(), Answers()
    requests.send(1, 2, None)
    answers.let(2)
    stream = in_order(requests.__aiter__(), answers, most_unanswered=8)
    first = asyncio.create_task(anext(stream))
    await until(lambda: answers.begun == [1, 2])

    answers.let(1)

    assert [await first, *[answer async for answer in stream]] == ["answer 1", "answer 2"]


async def test_all_that_arrives_is_begun_while_the_oldest_is_answered() -> None:
    requests, answers = Requests(), Answers()
    requests.send(1, 2, 3)
    stream = in_order(requests.__aiter__(), answers, most_unanswered=8)
    first = asyncio.create_task(anext(stream))

    await until(lambda: answers.begun == [1, 2, 3])

    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    await stream.aclose()


async def test_reading_waits_while_too_much_is_unanswered() -> None:
    requests, answers = Requests(), Answers()
    requests.send(1, 2, 3, 4, None)
    stream = in_order(requests.__aiter__(), answers, most_unanswered=2)
    first = asyncio.create_task(anext(stream))
    await until(lambda: requests.read == 3 and len(answers.begun) == 2)  # the third is in the reader's hand
    await turns()
    assert (requests.read, answers.begun) == (3, [1, 2])

    answers.let(1, 2, 3, 4)

    assert len([await first, *[answer async for answer in stream]]) == 4


async def test_a_costly_request_leaves_no_room_for_others_and_is_still_taken() -> None:
    requests, answers = Requests(), Answers()
    requests.send(100, 1, None)
    stream = in_order(requests.__aiter__(), answers, most_unanswered=4, cost=lambda request: request)
    first = asyncio.create_task(anext(stream))
    await until(lambda: requests.read == 2 and len(answers.begun) == 1)
    await turns()
    assert answers.begun == [100]

    answers.let(100, 1)

    assert [await first, *[answer async for answer in stream]] == ["answer 100", "answer 1"]


async def test_a_client_that_leaves_cancels_what_is_being_answered() -> None:
    requests, answers = Requests(), Answers()
    requests.send(1, 2)
    stream = in_order(requests.__aiter__(), answers, most_unanswered=8)
    first = asyncio.create_task(anext(stream))
    await until(lambda: answers.begun == [1, 2])

    requests.send(ConnectionResetError())

    with pytest.raises(ConnectionResetError):
        await first
    assert sorted(answers.cancelled) == [1, 2]


async def test_closing_the_stream_cancels_what_is_being_answered() -> None:
    requests, answers = Requests(), Answers()
    requests.send(1, 2)
    answers.let(1)
    stream = in_order(requests.__aiter__(), answers, most_unanswered=8)
    assert await anext(stream) == "answer 1"
    await until(lambda: answers.begun == [1, 2])

    await stream.aclose()

    assert answers.cancelled == [2]


async def test_the_end_of_the_requests_is_no_end_of_the_answers() -> None:
    requests, answers = Requests(), Answers()
    requests.send(1, None)
    stream = in_order(requests.__aiter__(), answers, most_unanswered=8)
    first = asyncio.create_task(anext(stream))
    await until(lambda: answers.begun == [1])

    answers.let(1)

    assert await first == "answer 1"
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_a_failed_answer_ends_the_stream_behind_the_answers_before_it() -> None:
    requests, answers = Requests(), Answers()
    requests.send(1, -2, 3, None)
    answers.let(1, -2)
    stream = in_order(requests.__aiter__(), answers, most_unanswered=8)

    assert await anext(stream) == "answer 1"
    with pytest.raises(ValueError, match="no answer to -2"):
        await anext(stream)
    assert answers.cancelled == [3]


def test_a_large_request_costs_one_more_per_mebibyte() -> None:
    assert [by_size(1000), by_size(2**20), by_size(5 * 2**20)] == [1, 2, 6]
