"""One limiter for all replicas that call API providers: a named actor, and how a replica asks it."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import ray
from ray.exceptions import RayError

from configs.providers import ModelLimits
from deployments.access.limiter import Allowed, Ask, Limiter, Refused, Usage
from deployments.access.rate_window import WINDOW_S
from deployments.errors import PolicyError

ACTOR_NAME = "rayward-provider-limits"
NAMESPACE = "rayward"
MARGIN_S = 0.25  # of a deadline: so that the refusal arrives before the caller has left
RETRY_S = 0.5  # between two tries while the actor starts again


class LimiterActor:
    """`Limiter` as an actor. It outlives the application, because the provider's minute does, too.

    Ray starts it again when its process dies. The new one does not know what the old one allowed, so it allows nothing
    for a window; a call under way then is not counted as concurrent, which lasts at most as long as that call.
    """

    def __init__(self, window_s: float = WINDOW_S) -> None:
        again = ray.get_runtime_context().was_current_actor_reconstructed
        self._limiter = Limiter(closed_for_s=window_s if again else 0.0, window_s=window_s)

    async def acquire(self, ask: Ask) -> Allowed | Refused:
        return await self._limiter.acquire(ask)

    async def settle(self, model: str, ticket: str, tokens: int | None) -> None:
        self._limiter.settle(model, ticket, tokens)

    async def cancel(self, model: str, ticket: str) -> None:
        self._limiter.cancel(model, ticket)

    async def close(self, model: str, seconds: float) -> None:
        self._limiter.close(model, seconds)


class ProviderLimits:
    """The limits of one model, held over all replicas. `actor`: a handle of LimiterActor, or what behaves like one."""

    def __init__(self, actor: Any, model: str, limits: ModelLimits, clock: Callable[[], float] = time.time) -> None:
        self._actor = actor
        self._model = model
        self._limits = limits
        self._clock = clock

    @classmethod
    def connect(cls, model: str, limits: ModelLimits, window_s: float = WINDOW_S) -> ProviderLimits:
        """With the cluster's limiter, which is started where there is none."""
        actor = (
            ray.remote(LimiterActor)
            .options(
                name=ACTOR_NAME,
                namespace=NAMESPACE,
                get_if_exists=True,
                lifetime="detached",
                max_restarts=-1,
                num_cpus=0,
                max_concurrency=10_000,  # each waiting call is one
            )
            .remote(window_s)
        )
        return cls(actor, model, limits)

    @asynccontextmanager
    async def permission(self, tokens: int, deadline_unix_s: float, lease_s: float) -> AsyncIterator[Usage]:
        """See `CallLimits.permission`."""
        ticket = uuid.uuid4().hex
        await self._acquire(ticket, tokens, deadline_unix_s, lease_s)
        usage = Usage()
        try:
            yield usage
        finally:
            self._actor.settle.remote(self._model, ticket, usage.tokens)

    def refused_by_provider(self, seconds: float) -> None:
        """Holds for all replicas."""
        self._actor.close.remote(self._model, seconds)

    async def _acquire(self, ticket: str, tokens: int, deadline_unix_s: float, lease_s: float) -> None:
        while True:
            left_s = deadline_unix_s - self._clock() - MARGIN_S
            try:
                answer = await self._asked(Ask(ticket, self._model, self._limits, tokens, max(0.0, left_s), lease_s))
                break
            except RayError as error:
                if left_s <= RETRY_S:
                    raise PolicyError("unavailable", "the limiter of API providers does not answer") from error
                await asyncio.sleep(RETRY_S)
        if isinstance(answer, Refused):
            raise PolicyError(
                answer.kind, answer.message, retry_after_s=answer.retry_after_s, rate_limit=answer.rate_limit
            )

    async def _asked(self, ask: Ask) -> Allowed | Refused:
        """One question to the limiter. A caller that leaves takes its ticket back."""
        try:
            async with asyncio.timeout(ask.wait_s + MARGIN_S):
                answer: Allowed | Refused = await self._actor.acquire.remote(ask)
                return answer
        except asyncio.CancelledError:
            self._actor.cancel.remote(ask.model, ask.ticket)
            raise
        except TimeoutError as error:
            self._actor.cancel.remote(ask.model, ask.ticket)
            raise PolicyError("unavailable", "the limiter of API providers does not answer") from error
