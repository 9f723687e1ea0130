"""Calls that travel together do not wait for each other."""

from __future__ import annotations

import asyncio
import contextvars
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


class Call:
    """What `send` returns in the application: an asynchronous iterator that ends the far side when it is cancelled."""

    def __init__(self, items: list[str]) -> None:
        self.items = items
        self.answers: asyncio.Queue[list[tuple[int, str]]] = asyncio.Queue()
        self.cancelled = False

    def __aiter__(self) -> Call:
        return self

    async def __anext__(self) -> list[tuple[int, str]]:
        return await self.answers.get()

    def cancel(self) -> None:
        self.cancelled = True


class Calls:
    """Records the calls that a batcher makes, and the items that it takes out of them."""

    def __init__(self) -> None:
        self.made: list[Call] = []
        self.abandoned: list[str] = []
        self.context_seen: list[str] = []
        self._new = asyncio.Semaphore(0)

    def send(self, items: list[str]) -> Call:
        self.context_seen.append(caller.get())
        self.made.append(Call(items))
        self._new.release()
        return self.made[-1]

    async def abandon(self, items: list[str]) -> None:
        self.abandoned += items

    async def until_made(self, count: int) -> None:
        async with asyncio.timeout(10):
            for _ in range(count):
                await self._new.acquire()


caller: contextvars.ContextVar[str] = contextvars.ContextVar("caller", default="nobody")


def size_of(item: str) -> int:
    return len(item)


async def gone(task: asyncio.Task[str]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_batch_is_bounded_in_bytes_and_what_is_larger_travels_alone() -> None:
    calls = Calls()
    batcher = Batcher(calls.send, window_s=0.0, max_batch=16, max_bytes=10, size_of=size_of)
    tasks = [asyncio.create_task(batcher(item, 60.0)) for item in ("aaaa", "bbbb", "c" * 50, "dd")]
    await calls.until_made(3)
    assert [call.items for call in calls.made] == [["aaaa", "bbbb"], ["c" * 50], ["dd"]]
    for task in tasks:
        await gone(task)


async def test_the_call_of_a_batch_belongs_to_no_request() -> None:
    calls = Calls()
    batcher = Batcher(calls.send, window_s=0.0, max_batch=1)

    async def request() -> str:
        caller.set("the first of the batch")
        return await batcher("a", 60.0)

    task = asyncio.create_task(request())
    await calls.until_made(1)
    assert calls.context_seen == ["nobody"]
    await gone(task)


async def test_an_item_whose_caller_left_is_taken_out_by_itself_and_its_neighbour_is_answered() -> None:
    calls = Calls()
    batcher = Batcher(calls.send, window_s=0.0, max_batch=2, abandon=calls.abandon)
    leaver, stayer = (asyncio.create_task(batcher(item, 60.0)) for item in ("leaver", "stayer"))
    await calls.until_made(1)
    await gone(leaver)
    assert calls.abandoned == ["leaver"]
    assert not calls.made[0].cancelled
    calls.made[0].answers.put_nowait([(1, "answer")])
    assert await stayer == "answer"


async def test_the_call_is_cancelled_when_the_last_caller_of_its_batch_has_left() -> None:
    calls = Calls()
    batcher = Batcher(calls.send, window_s=0.0, max_batch=2, abandon=calls.abandon)
    tasks = [asyncio.create_task(batcher(item, 60.0)) for item in ("a", "b")]
    await calls.until_made(1)
    for task in tasks:
        await gone(task)
    assert calls.made[0].cancelled


async def test_an_item_that_gave_up_at_its_deadline_is_taken_out_like_one_that_left() -> None:
    calls = Calls()
    batcher = Batcher(calls.send, window_s=0.0, max_batch=2, margin_s=0.0, abandon=calls.abandon)
    stayer = asyncio.create_task(batcher("stayer", 60.0))
    await asyncio.sleep(0)  # it is the first of the batch
    with pytest.raises(PolicyError):
        await batcher("late", 0.01)
    for _ in range(10):
        await asyncio.sleep(0)
    assert calls.abandoned == ["late"]
    calls.made[0].answers.put_nowait([(0, "answer")])
    assert await stayer == "answer"


async def test_no_future_stays_open_when_the_call_of_its_batch_is_cancelled_from_outside() -> None:
    class Cancelled(Call):
        async def __anext__(self) -> list[tuple[int, str]]:
            raise asyncio.CancelledError

    batcher = Batcher(Cancelled, window_s=0.0, max_batch=1)
    with pytest.raises(PolicyError, match="try again"):
        await batcher("a", 60.0)


async def test_an_item_whose_caller_left_before_the_batch_was_sent_is_not_sent() -> None:
    calls = Calls()
    batcher = Batcher(calls.send, window_s=60.0, max_batch=2)
    leaver = asyncio.create_task(batcher("leaver", 60.0))
    await asyncio.sleep(0)
    await gone(leaver)
    stayers = [asyncio.create_task(batcher(item, 60.0)) for item in ("b", "c")]
    await calls.until_made(1)
    assert calls.made[0].items == ["b", "c"]
    for task in stayers:
        await gone(task)


def is_end(answer: str) -> bool:
    return answer == "end"


async def all_of(batcher: Batcher[str, str], item: str, into: list[list[str]]) -> None:
    async for answers in batcher.stream(item, 60.0):
        into.append(answers)  # noqa: PERF401  # the test looks at what has come so far


async def turns_of_the_loop() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_the_answers_of_a_stream_come_as_they_are_sent_and_their_neighbours_get_none_of_them() -> None:
    calls = Calls()
    batcher = Batcher(calls.send, window_s=0.0, max_batch=2, is_last=is_end)
    got: dict[str, list[list[str]]] = {"a": [], "b": []}
    tasks = [asyncio.create_task(all_of(batcher, item, got[item])) for item in got]
    await calls.until_made(1)
    calls.made[0].answers.put_nowait([(0, "1"), (1, "x"), (0, "2")])
    await turns_of_the_loop()
    assert got == {"a": [["1", "2"]], "b": [["x"]]}
    calls.made[0].answers.put_nowait([(1, "end")])
    await tasks[1]
    calls.made[0].answers.put_nowait([(0, "3"), (0, "end")])
    await tasks[0]
    assert got == {"a": [["1", "2"], ["3", "end"]], "b": [["x"], ["end"]]}


async def test_what_came_before_a_stream_broke_off_is_given_and_then_the_failure() -> None:
    async def send(items: list[str]) -> AsyncIterator[list[tuple[int, str]]]:
        yield [(0, "1")]
        raise RuntimeError("gone")

    batcher = Batcher(send, window_s=0.0, max_batch=1, is_last=is_end)
    got: list[list[str]] = []
    with pytest.raises(RuntimeError, match="gone"):
        await all_of(batcher, "a", got)
    assert got == [["1"]]


async def test_a_stream_that_is_left_in_the_middle_is_taken_out() -> None:
    calls = Calls()
    batcher = Batcher(calls.send, window_s=0.0, max_batch=2, abandon=calls.abandon, is_last=is_end)
    left, stayed = batcher.stream("left", 60.0), batcher.stream("stayed", 60.0)
    first = [asyncio.ensure_future(anext(stream)) for stream in (left, stayed)]
    await calls.until_made(1)
    calls.made[0].answers.put_nowait([(0, "1"), (1, "1")])
    assert await asyncio.gather(*first) == [["1"], ["1"]]
    await left.aclose()
    await turns_of_the_loop()
    assert calls.abandoned == ["left"]
    calls.made[0].answers.put_nowait([(0, "2"), (1, "end")])
    assert await anext(stayed) == ["end"]
    with pytest.raises(StopAsyncIteration):
        await anext(stayed)
    await turns_of_the_loop()
    assert (calls.abandoned, calls.made[0].cancelled) == (["left"], False)


async def test_a_stream_ends_at_its_deadline_after_what_came_before() -> None:
    calls = Calls()
    batcher = Batcher(calls.send, window_s=0.0, max_batch=1, margin_s=0.0, is_last=is_end)
    stream = batcher.stream("a", 0.05)
    first = asyncio.ensure_future(anext(stream))
    await calls.until_made(1)
    calls.made[0].answers.put_nowait([(0, "1")])
    assert await first == ["1"]
    with pytest.raises(PolicyError, match=r"within 0\.05 s"):
        await anext(stream)
    await turns_of_the_loop()
    assert calls.made[0].cancelled
