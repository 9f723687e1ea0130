"""Who waits for a model is served in turn, for as long as it may wait, and is told why not."""

from __future__ import annotations

import asyncio

import pytest

from configs.providers import ModelLimits
from deployments.access import limiter as module
from deployments.access.limiter import Allowed, Ask, Limiter, Refused

LONG_S = 30.0


def ask(ticket: str, limits: ModelLimits, tokens: int = 1, wait_s: float = LONG_S, model: str = "openai/gpt-4o") -> Ask:
    return Ask(ticket, model, limits, tokens, wait_s, lease_s=60.0)


ONE_AT_A_TIME = ModelLimits(concurrent_requests=1)
ONE_A_MINUTE = ModelLimits(requests_per_minute=1)


async def waiting(limiter: Limiter, *asks: Ask) -> list[asyncio.Task[Allowed | Refused]]:
    tasks = []
    for each in asks:
        tasks.append(asyncio.create_task(limiter.acquire(each)))
        for _ in range(5):  # until it stands in the queue
            await asyncio.sleep(0)
    return tasks


async def test_the_calls_of_a_model_go_one_after_the_other_in_the_order_in_which_they_came() -> None:
    limiter = Limiter()
    assert await limiter.acquire(ask("a", ONE_AT_A_TIME)) == Allowed("a")
    second, third = await waiting(limiter, ask("b", ONE_AT_A_TIME), ask("c", ONE_AT_A_TIME))
    assert not second.done()

    limiter.settle("openai/gpt-4o", "a", 1)
    assert await second == Allowed("b")
    assert not third.done()
    limiter.settle("openai/gpt-4o", "b", None)
    assert await third == Allowed("c")


async def test_the_calls_of_another_model_do_not_wait() -> None:
    limiter = Limiter()
    await limiter.acquire(ask("a", ONE_AT_A_TIME))

    assert await limiter.acquire(ask("b", ONE_AT_A_TIME, model="gemini/flash")) == Allowed("b")


async def test_a_call_that_cannot_come_in_time_is_refused_at_once_with_all_that_its_caller_needs() -> None:
    limiter = Limiter()
    await limiter.acquire(ask("a", ONE_A_MINUTE))

    answer = await limiter.acquire(ask("b", ONE_A_MINUTE, wait_s=LONG_S))

    assert isinstance(answer, Refused)
    assert (answer.kind, "openai/gpt-4o is at its rate limit" in answer.message) == ("overloaded", True)
    assert answer.retry_after_s == pytest.approx(60, abs=20)
    assert dict(answer.rate_limit)["x-ratelimit-remaining-requests"] == "0"


async def test_a_call_waits_for_a_running_one_until_its_time_is_over() -> None:
    limiter = Limiter()
    await limiter.acquire(ask("a", ONE_AT_A_TIME))

    answer = await limiter.acquire(ask("b", ONE_AT_A_TIME, wait_s=0.02))

    assert isinstance(answer, Refused)
    assert answer.kind == "overloaded"


async def test_a_window_opens_by_itself_for_who_waits() -> None:
    limiter = Limiter(window_s=0.05)
    await limiter.acquire(ask("a", ONE_A_MINUTE))

    assert await limiter.acquire(ask("b", ONE_A_MINUTE)) == Allowed("b")


async def test_a_call_with_less_usage_than_expected_lets_the_next_one_in() -> None:
    limits = ModelLimits(tokens_per_minute=100)
    limiter = Limiter()
    await limiter.acquire(ask("a", limits, tokens=80))
    [second] = await waiting(limiter, ask("b", limits, tokens=50))

    limiter.settle("openai/gpt-4o", "a", 10)

    assert await second == Allowed("b")


async def test_a_large_call_is_not_overtaken_by_small_ones_until_nobody_waits_for_it_any_more() -> None:
    limits = ModelLimits(tokens_per_minute=100)
    limiter = Limiter()
    await limiter.acquire(ask("a", limits, tokens=50))
    large, small = await waiting(limiter, ask("large", limits, tokens=80), ask("small", limits, tokens=10))
    assert not small.done()

    limiter.cancel("openai/gpt-4o", "large")

    assert await small == Allowed("small")
    assert large.cancelled()


async def test_a_call_over_the_whole_limit_is_refused_for_good() -> None:
    answer = await Limiter().acquire(ask("a", ModelLimits(tokens_per_minute=100), tokens=101))

    assert isinstance(answer, Refused)
    assert (answer.kind, answer.retry_after_s) == ("too_large", None)
    assert "101 tokens are over its limit of 100 per minute" in answer.message


async def test_a_caller_that_leaves_takes_its_place_in_the_queue_along() -> None:
    limiter = Limiter()
    await limiter.acquire(ask("a", ONE_AT_A_TIME))
    left, third = await waiting(limiter, ask("b", ONE_AT_A_TIME), ask("c", ONE_AT_A_TIME))

    limiter.cancel("openai/gpt-4o", "b")
    with pytest.raises(asyncio.CancelledError):
        await left
    limiter.settle("openai/gpt-4o", "a", 1)

    assert await third == Allowed("c")


async def test_a_permission_that_came_too_late_is_given_back_whole() -> None:
    limiter = Limiter()
    await limiter.acquire(ask("a", ONE_A_MINUTE))

    limiter.cancel("openai/gpt-4o", "a")

    assert await limiter.acquire(ask("b", ONE_A_MINUTE)) == Allowed("b")


async def test_a_queue_that_is_full_refuses_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_WAITING", 2)
    limiter = Limiter()
    await limiter.acquire(ask("a", ONE_AT_A_TIME))
    queue = await waiting(limiter, ask("b", ONE_AT_A_TIME), ask("c", ONE_AT_A_TIME))

    answer = await limiter.acquire(ask("d", ONE_AT_A_TIME))

    assert isinstance(answer, Refused)
    assert "2 calls of openai/gpt-4o wait already" in answer.message
    for task in queue:
        task.cancel()


async def test_a_limiter_in_place_of_a_lost_one_allows_nothing_until_the_lost_ones_calls_are_forgotten() -> None:
    limiter = Limiter(closed_for_s=60)

    answer = await limiter.acquire(ask("a", ONE_A_MINUTE))

    assert isinstance(answer, Refused)
    assert answer.retry_after_s == pytest.approx(60, abs=20)
    limiter.settle("a model that it never saw", "ticket", 5)  # calls of the lost one end here, and change nothing


async def test_a_provider_that_takes_no_more_closes_its_model() -> None:
    limiter = Limiter()
    await limiter.acquire(ask("a", ModelLimits()))

    limiter.close("openai/gpt-4o", 60)

    assert isinstance(await limiter.acquire(ask("b", ModelLimits())), Refused)


async def test_the_newest_limits_hold_also_for_who_waits_already() -> None:
    limiter = Limiter()
    await limiter.acquire(ask("a", ONE_AT_A_TIME))
    [second] = await waiting(limiter, ask("b", ONE_AT_A_TIME))

    more = ModelLimits(concurrent_requests=3)
    third = asyncio.create_task(limiter.acquire(ask("c", more)))

    assert await second == Allowed("b")
    assert await third == Allowed("c")
