"""The limiter of API providers as an actor: one for all processes, and safe when one of them dies. Needs Ray alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from configs.providers import ModelLimits
from deployments.access.provider_limits import ACTOR_NAME, NAMESPACE, ProviderLimits
from deployments.errors import PolicyError
from training.cluster import ray_session

ROOT = Path(__file__).resolve().parents[2]
WINDOW_S = 5.0  # instead of a minute


@pytest.fixture
def _ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with ray_session.ray_session():
        yield
        # The Ray may be that of other tests, and the actor outlives who made it.
        ray.kill(ray.get_actor(ACTOR_NAME, namespace=NAMESPACE), no_restart=True)


@ray.remote(num_cpus=0)
class Caller:
    """A replica in a process of its own, with one call after the other."""

    def __init__(self, limits: ModelLimits) -> None:
        self._limits = ProviderLimits.connect("openai/gpt-4o", limits, WINDOW_S)

    async def call(self, wait_s: float) -> float:
        """Wall time at which the call was allowed. Raises PolicyError."""
        async with self._limits.permission(10, time.time() + wait_s, lease_s=1.0) as usage:
            usage.tokens = 10
            return time.time()

    async def hold(self, lease_s: float) -> None:
        """Begins a call that does not end."""
        async with self._limits.permission(10, time.time() + 60, lease_s=lease_s):
            asyncio.get_running_loop().call_soon(self._held.set)
            await asyncio.sleep(3600)

    async def holding(self) -> None:
        await self._held.wait()

    @property
    def _held(self) -> asyncio.Event:
        return self.__dict__.setdefault("held", asyncio.Event())


def callers(limits: ModelLimits, count: int) -> list[Any]:
    return [Caller.options(max_concurrency=8).remote(limits) for _ in range(count)]


@pytest.mark.usefixtures("_ray")
def test_processes_share_one_limit_which_a_restart_of_the_limiter_does_not_forget() -> None:
    limits = ModelLimits(requests_per_minute=4)
    two = callers(limits, 2)

    times = ray.get([two[k % 2].call.remote(60.0) for k in range(10)], timeout=90)

    first = sorted(times)
    assert [first[k + 4] - first[k] >= WINDOW_S - 0.05 for k in range(6)] == [True] * 6
    killed_s = time.time()
    ray.kill(ray.get_actor(ACTOR_NAME, namespace=NAMESPACE), no_restart=False)
    assert ray.get(two[0].call.remote(60.0), timeout=90) - killed_s >= WINDOW_S - 0.05


@pytest.mark.usefixtures("_ray")
def test_the_place_of_a_process_that_dies_is_free_when_its_lease_ends() -> None:
    limits = ModelLimits(concurrent_requests=1)
    holder, other = callers(limits, 2)
    holder.hold.remote(15.0)
    ray.get(holder.holding.remote(), timeout=60)
    with pytest.raises(PolicyError, match="rate limit"):
        ray.get(other.call.remote(1.0), timeout=60)

    ray.kill(holder)

    ray.get(other.call.remote(60.0), timeout=90)
