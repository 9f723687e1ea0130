"""How a replica asks the one limiter, here without Ray: the actor is the same class, called in this process."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError

from configs.providers import ModelLimits
from deployments.access import provider_limits as module
from deployments.access.limiter import Allowed, Ask, Limiter, Refused
from deployments.access.provider_limits import ProviderLimits
from deployments.errors import PolicyError

MODEL = "openai/gpt-4o"
ONE_AT_A_TIME = ModelLimits(concurrent_requests=1)


class Remote:
    """A method with `.remote()`."""

    def __init__(self, method: Any) -> None:
        self._method = method

    def remote(self, *arguments: Any) -> Any:
        result = self._method(*arguments)
        # As with Ray, who stops waiting does not stop the call.
        return asyncio.shield(asyncio.ensure_future(result)) if asyncio.iscoroutine(result) else result


class Actor:
    """Looks like a handle of LimiterActor. The next calls of `acquire` fail with `failures`, if there are any."""

    def __init__(self, limiter: Limiter | None = None) -> None:
        self.limiter = limiter or Limiter()
        self.failures: list[Exception] = []
        self.asked = 0
        self.asked_twice = asyncio.Event()
        self.acquire = Remote(self._acquire)
        self.settle = Remote(self.limiter.settle)
        self.cancel = Remote(self.limiter.cancel)
        self.close = Remote(self.limiter.close)

    async def _acquire(self, ask: Ask) -> Allowed | Refused:
        if self.failures:
            raise self.failures.pop(0)
        self.asked += 1
        if self.asked == 2:
            self.asked_twice.set()
        return await self.limiter.acquire(ask)


def soon(seconds: float = 30.0) -> float:
    return time.time() + seconds


async def test_a_place_is_given_back_at_the_end_of_the_call_also_of_one_that_fails() -> None:
    limits = ProviderLimits(Actor(), MODEL, ONE_AT_A_TIME)

    with pytest.raises(ZeroDivisionError):
        async with limits.permission(1, soon(), lease_s=60):
            1 / 0  # noqa: B018

    async with limits.permission(1, soon(), lease_s=60) as usage:
        usage.tokens = 5


async def test_real_usage_is_settled() -> None:
    limits = ProviderLimits(Actor(), MODEL, ModelLimits(tokens_per_minute=100))
    async with limits.permission(90, soon(), lease_s=60) as usage:
        usage.tokens = 10

    async with limits.permission(90, soon(), lease_s=60):
        pass


async def test_two_replicas_share_one_limit() -> None:
    actor = Actor()
    one, other = (ProviderLimits(actor, MODEL, ModelLimits(requests_per_minute=1)) for _ in range(2))
    async with one.permission(1, soon(), lease_s=60):
        pass

    with pytest.raises(PolicyError) as caught:
        async with other.permission(1, soon(), lease_s=60):
            pytest.fail("over the limit")

    assert caught.value.kind == "overloaded"
    assert caught.value.retry_after_s == pytest.approx(60, abs=20)
    assert caught.value.headers()["x-ratelimit-limit-requests"] == "1"


async def test_a_refusal_comes_before_the_callers_deadline() -> None:
    limits = ProviderLimits(Actor(), MODEL, ONE_AT_A_TIME)
    async with limits.permission(1, soon(), lease_s=60):
        deadline_unix_s = soon(module.MARGIN_S + 0.05)
        with pytest.raises(PolicyError, match="rate limit"):
            async with limits.permission(1, deadline_unix_s, lease_s=60):
                pytest.fail("over the limit")


async def test_a_caller_that_leaves_gives_up_its_place_in_the_queue() -> None:
    actor = Actor()
    limits = ProviderLimits(actor, MODEL, ONE_AT_A_TIME)

    async def call() -> None:
        async with limits.permission(1, soon(), lease_s=60):
            pass

    async with limits.permission(1, soon(), lease_s=60):
        leaving = asyncio.create_task(call())
        await actor.asked_twice.wait()
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
    await call()


async def test_a_limiter_that_starts_again_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.0)
    actor = Actor()
    actor.failures = [ActorUnavailableError("restarting", None), ActorDiedError()]

    async with ProviderLimits(actor, MODEL, ONE_AT_A_TIME).permission(1, soon(), lease_s=60) as usage:
        assert usage.tokens is None


async def test_a_limiter_that_stays_away_makes_the_call_fail_and_not_pass() -> None:
    actor = Actor()
    actor.failures = [ActorDiedError()] * 10

    with pytest.raises(PolicyError, match="unavailable: the limiter of API providers does not answer"):
        async with ProviderLimits(actor, MODEL, ONE_AT_A_TIME).permission(1, soon(0.1), lease_s=60):
            pytest.fail("nobody permitted it")


async def test_what_the_provider_refuses_holds_for_all() -> None:
    actor = Actor()
    one, other = (ProviderLimits(actor, MODEL, ModelLimits()) for _ in range(2))
    async with one.permission(1, soon(), lease_s=60):
        one.refused_by_provider(60)

    with pytest.raises(PolicyError, match="overloaded"):
        async with other.permission(1, soon(), lease_s=60):
            pytest.fail("the provider takes no more")
