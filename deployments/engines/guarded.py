"""An engine that notices that it stopped working: then it refuses, ends what is running, and fails its health check."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

from deployments.engines.base import (
    AsgiApp,
    Breaker,
    ChunkDescribed,
    ChunkEngine,
    DeviceStatus,
    Engine,
    EngineUnhealthy,
    TokenEngine,
)
from deployments.errors import PolicyError
from deployments.protocol.act import ChatAnswer, ChatRequest, ChatTurn, ChunkAnswer, ChunkRequest
from deployments.protocol.generate import GenerateFailure, GeneratePiece, GenerateRequest, GenerateResult
from deployments.weights.push_steps import PushStep

EngineT = TypeVar("EngineT", bound=Engine)


class ProgressWatch:
    """How long the oldest request of an engine has made no progress.

    Engines serve in the order of arrival, so the oldest request waits for nobody: if it stands still, the engine does.
    A request behind it may wait for as long as its deadline lets it.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._oldest: tuple[str, int] | None = None
        self._since = clock()

    def stalled_s(self, held: Mapping[str, int]) -> float:
        """`held`: see `Engine.held`. Seconds since the oldest request was first seen in the state it is in."""
        oldest = next(iter(held.items()), None)
        if oldest is None or oldest != self._oldest:
            self._oldest, self._since = oldest, self._clock()
        return self._clock() - self._since


class Admission:
    """Calls in progress. Once closed, it lets no call in and ends those that run, with PolicyError("engine_failed")."""

    def __init__(self) -> None:
        self._reason: str | None = None
        self._running: set[asyncio.Timeout] = set()

    def close(self, reason: str) -> None:
        self._reason = reason
        for call in self._running:
            call.reschedule(0)  # a time in the past: the call ends now

    @asynccontextmanager
    async def call(self) -> AsyncIterator[None]:
        """Around each call. Raises PolicyError("engine_failed") before or in the middle of it."""
        if self._reason is not None:
            raise self._failure()
        try:
            async with asyncio.timeout(None) as call:
                self._running.add(call)
                try:
                    yield
                finally:
                    self._running.discard(call)
        except TimeoutError:
            if self._reason is None:
                raise  # a time-out of the call's own
            raise self._failure() from None

    def _failure(self) -> PolicyError:
        return PolicyError("engine_failed", f"{self._reason}; the replica is being replaced: try again")


class GuardedEngine(Generic[EngineT]):
    """Any engine, guarded; an Engine itself.

    `no_progress_s`: seconds after which a request that stands still turns the engine unhealthy.
    """

    def __init__(self, engine: EngineT, no_progress_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._engine = engine
        self._no_progress_s = no_progress_s
        self._watch = ProgressWatch(clock)
        self._admission = Admission()
        engine.breaker.listen(self._admission.close)

    @property
    def version(self) -> int:
        return self._engine.version

    @property
    def breaker(self) -> Breaker:
        return self._engine.breaker

    async def load(self) -> None:
        await self._engine.load()

    async def update(self, folder: Path, version: int) -> None:
        self._refuse_if_broken()
        await self._engine.update(folder, version)

    async def push(self, step: PushStep) -> None:
        self._refuse_if_broken()
        await self._engine.push(step)

    def _refuse_if_broken(self) -> None:
        if self.breaker.reason is not None:
            raise PolicyError("engine_failed", f"{self.breaker.reason}; the replica is being replaced: try again")

    def held(self) -> Mapping[str, int]:
        return self._engine.held()

    def unfinished(self) -> int:
        return self._engine.unfinished()

    async def health(self) -> None:
        """Raises EngineUnhealthy; the breaker is tripped then."""
        if self.breaker.reason is None:
            try:
                self._check_progress()
                await self._engine.health()
            except EngineUnhealthy as error:
                self.breaker.trip(str(error))
        if self.breaker.reason is not None:
            raise EngineUnhealthy(self.breaker.reason)

    def _check_progress(self) -> None:
        held = self._engine.held()
        stalled_s = self._watch.stalled_s(held)
        if stalled_s >= self._no_progress_s:
            oldest = next(iter(held))
            raise EngineUnhealthy(
                f"the engine holds {len(held)} request(s), and the oldest ({oldest!r}) has made no progress for "
                f"{stalled_s:.0f} s (replicas.no_progress_s: {self._no_progress_s:g})"
            )

    async def close(self) -> None:
        await self._engine.close()


class GuardedTokenEngine(GuardedEngine[TokenEngine]):
    """A TokenEngine."""

    async def generate(self, requests: Sequence[GenerateRequest]) -> list[GenerateResult | GenerateFailure]:
        try:
            async with self._admission.call():
                return await self._engine.generate(requests)
        except PolicyError as error:
            return [GenerateFailure(request.request_id, error.kind, error.message) for request in requests]

    async def stream(
        self, request: GenerateRequest, emit: Callable[[GeneratePiece], None]
    ) -> GenerateResult | GenerateFailure:
        try:
            async with self._admission.call():
                return await self._engine.stream(request, emit)
        except PolicyError as error:
            return GenerateFailure(request.request_id, error.kind, error.message)

    async def conversation(self, turns: Sequence[ChatTurn]) -> list[int]:
        async with self._admission.call():
            return await self._engine.conversation(turns)

    async def chat(self, request: ChatRequest) -> ChatAnswer:
        try:
            async with self._admission.call():
                return await self._engine.chat(request)
        except PolicyError as error:
            return GenerateFailure(request.request_id, error.kind, error.message)

    async def openai_application(self) -> AsgiApp:
        app = await self._engine.openai_application()

        async def guarded(
            scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
        ) -> None:
            async with self._admission.call():
                await app(scope, receive, send)

        return guarded


class GuardedChunkEngine(GuardedEngine[ChunkEngine]):
    """A ChunkEngine."""

    async def act(self, request: ChunkRequest) -> ChunkAnswer:
        try:
            async with self._admission.call():
                return await self._engine.act(request)
        except PolicyError as error:
            return GenerateFailure(request.request_id, error.kind, error.message)

    @property
    def description(self) -> ChunkDescribed:
        return self._engine.description

    def device(self) -> DeviceStatus:
        return self._engine.device()
