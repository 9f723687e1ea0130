from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence

import pytest

from deployments.engines.chunks.batching import DynamicBatches
from deployments.errors import PolicyError

LONG_S = 60.0


class Passes:
    """Answers each request with ten times itself; a pass begins when it was let through."""

    def __init__(self) -> None:
        self.seen: list[list[int]] = []
        self.through = threading.Semaphore(0)
        self.began = threading.Semaphore(0)
        self.fails = False

    def __call__(self, requests: Sequence[int]) -> list[int]:
        self.seen.append(list(requests))
        self.began.release()
        assert self.through.acquire(timeout=30)
        if self.fails:
            raise RuntimeError("out of memory")
        return [10 * request for request in requests]

    async def wait_for_pass(self) -> None:
        assert await asyncio.to_thread(self.began.acquire, timeout=30)


Make = Callable[..., tuple[Passes, DynamicBatches[int, int]]]


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    opened: list[tuple[Passes, DynamicBatches[int, int]]] = []

    def made(max_batch: int = 4, window_s: float = 0.0, **more: object) -> tuple[Passes, DynamicBatches[int, int]]:
        passes = Passes()
        opened.append((passes, DynamicBatches(passes, max_batch, window_s, **more)))  # type: ignore[arg-type]
        return opened[-1]

    yield made
    for passes, batches in opened:
        passes.through.release(1000)
        await batches.close()


def ask(batches: DynamicBatches[int, int], *requests: int, deadline_s: float = LONG_S) -> list[asyncio.Task[int]]:
    async def one(request: int) -> int:
        return (await batches.submit(request, deadline_s)).answer

    return [asyncio.create_task(one(request)) for request in requests]


async def test_whatever_waits_while_a_pass_runs_joins_the_next_one_up_to_the_bound(make: Make) -> None:
    passes, batches = make(max_batch=4)
    passes.through.release(10)
    first = ask(batches, 1)
    await passes.wait_for_pass()
    later = ask(batches, 2, 3, 4, 5, 6, 7)
    assert await asyncio.gather(*first, *later) == [10, 20, 30, 40, 50, 60, 70]
    assert [request for batch in passes.seen for request in batch] == [1, 2, 3, 4, 5, 6, 7], "oldest first"
    assert max(map(len, passes.seen)) <= 4
    assert len(passes.seen) < 7


async def test_a_client_that_is_alone_waits_for_no_company(make: Make) -> None:
    """The window would be its whole deadline."""
    passes, batches = make(window_s=LONG_S)
    passes.through.release(10)
    for request in range(5):
        assert await asyncio.wait_for(ask(batches, request)[0], 30) == 10 * request


async def test_clients_that_ask_one_after_the_other_are_gathered_into_one_pass(make: Make) -> None:
    """Two clients, each asking again when it was answered, would alternate without the window."""
    passes, batches = make(window_s=LONG_S)
    first = ask(batches, 1)
    await passes.wait_for_pass()
    second = ask(batches, 2)
    await asyncio.sleep(0)  # it waits now
    passes.through.release()
    assert await first[0] == 10
    again = ask(batches, 3)
    passes.through.release(10)
    assert await asyncio.gather(*second, *again) == [20, 30]
    assert passes.seen == [[1], [2, 3]]


async def test_a_pass_does_not_wait_longer_than_the_window_for_a_client_that_left(make: Make) -> None:
    passes, batches = make(window_s=0.01)
    first = ask(batches, 1)
    await passes.wait_for_pass()
    second = ask(batches, 2)
    await asyncio.sleep(0)
    passes.through.release(10)
    assert await asyncio.wait_for(asyncio.gather(*first, *second), 30) == [10, 20]


async def test_a_cancelled_request_leaves_before_its_pass_and_its_neighbours_stay(make: Make) -> None:
    passes, batches = make()
    first = ask(batches, 1)
    await passes.wait_for_pass()
    left, stayed = ask(batches, 2, 3)
    await asyncio.sleep(0)
    left.cancel()
    await asyncio.gather(left, return_exceptions=True)
    assert batches.held() == [1, 3]
    passes.through.release(10)
    assert await asyncio.gather(*first, stayed) == [10, 30]
    assert passes.seen == [[1], [3]]


async def test_a_caller_that_leaves_during_its_pass_disturbs_nobody(make: Make) -> None:
    passes, batches = make()
    [first] = ask(batches, 1)
    await passes.wait_for_pass()
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    passes.through.release(10)
    assert await asyncio.gather(*ask(batches, 2)) == [20]


async def test_a_request_waits_no_longer_than_its_deadline_and_joins_no_pass_after_it(make: Make) -> None:
    passes, batches = make()
    first = ask(batches, 1)
    await passes.wait_for_pass()
    with pytest.raises(PolicyError, match="no answer within") as late:
        await ask(batches, 2, deadline_s=0.01)[0]
    assert late.value.kind == "deadline_exceeded"
    passes.through.release(10)
    await asyncio.gather(*first)
    assert passes.seen == [[1]]


async def test_a_pass_that_fails_fails_its_own_requests_and_the_next_one_works(make: Make) -> None:
    told: list[BaseException] = []
    passes, batches = make(on_failure=told.append)
    passes.through.release(10)
    passes.fails = True
    failed = await asyncio.gather(*ask(batches, 1, 2), return_exceptions=True)
    assert [error.kind for error in failed if isinstance(error, PolicyError)] == ["engine_failed"] * 2
    assert "out of memory" in str(told[0])
    passes.fails = False
    assert await asyncio.gather(*ask(batches, 3)) == [30]


async def test_what_must_not_run_beside_a_pass_runs_between_two(make: Make) -> None:
    passes, batches = make()
    first = ask(batches, 1)
    await passes.wait_for_pass()
    order: list[str] = []
    swap = asyncio.create_task(batches.between_passes(lambda: order.append("swapped")))
    await asyncio.sleep(0)
    second = ask(batches, 2)
    assert order == []
    passes.through.release(10)
    await asyncio.gather(*first, swap, *second)
    assert order == ["swapped"]
    assert passes.seen == [[1], [2]]


async def test_a_swap_is_finished_although_its_caller_left(make: Make) -> None:
    passes, batches = make()
    first = ask(batches, 1)
    await passes.wait_for_pass()
    done = threading.Event()
    swap = asyncio.create_task(batches.between_passes(done.set))
    await asyncio.sleep(0)
    swap.cancel()
    await asyncio.gather(swap, return_exceptions=True)
    passes.through.release(10)
    await asyncio.gather(*first)
    assert await asyncio.to_thread(done.wait, 30)


async def test_closing_answers_who_waits_and_refuses_who_comes(make: Make) -> None:
    passes, batches = make(max_batch=1)
    running, waiting = ask(batches, 1, 2)
    await passes.wait_for_pass()
    passes.through.release(10)
    await batches.close()
    with pytest.raises(PolicyError):
        await waiting
    await asyncio.gather(running, return_exceptions=True)
    with pytest.raises(PolicyError, match="closed") as refused:
        await batches.submit(3, LONG_S)
    assert refused.value.kind == "unavailable"


async def test_the_time_in_the_queue_is_told_apart_from_the_time_of_the_pass(make: Make) -> None:
    passes, batches = make()
    first = ask(batches, 1)
    await passes.wait_for_pass()
    second = asyncio.create_task(batches.submit(2, LONG_S))
    await asyncio.sleep(0.02)
    passes.through.release(10)
    await asyncio.gather(*first)
    assert (await second).queue_ms >= 20.0
