"""A whole TokenEngine without a model, for tests of what stands around engines."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from configs.policies import PolicyConfig
from deployments.engines.base import AsgiApp, Breaker
from deployments.errors import PolicyError
from deployments.protocol.act import ChatAnswer, ChatRequest, ChatResult, ChatTurn
from deployments.protocol.generate import GenerateFailure, GeneratePiece, GenerateRequest, GenerateResult
from deployments.weights.push_steps import FinishPush, PushStep


class InMemoryEngine:
    """Answers every request with `max_tokens` times its weight version, as soon as `answering` is set. A streamed
    answer has a piece of text for each token, before `answering` is awaited.

    `updating`: an update waits until it is set (it is, at the start); `breaks`: the next update breaks half-way.
    """

    def __init__(self, config: PolicyConfig | None = None) -> None:
        self.version = 0
        self.breaker = Breaker()
        self.loaded = self.closed = False
        self.answering, self.updating, self.update_began = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.answering.set()
        self.updating.set()
        self.breaks: str | None = None
        self.progress: dict[str, int] = {}
        self.arrived = asyncio.Event()

    async def load(self) -> None:
        self.loaded = True

    async def generate(self, requests: Sequence[GenerateRequest]) -> list[GenerateResult | GenerateFailure]:
        return [await self._answer(request) for request in requests]

    async def _answer(self, request: GenerateRequest) -> GenerateResult:
        self.progress[request.request_id] = 0
        self.arrived.set()
        try:
            await self.answering.wait()
            tokens = [self.version] * request.sampling.max_tokens
            return GenerateResult(
                request.request_id,
                tokens,
                [0.0] * len(tokens),
                self.version,
                "length",
                self.version,
                text="".join(map(str, tokens)) if request.sampling.text else "",
            )
        finally:
            del self.progress[request.request_id]

    async def stream(
        self, request: GenerateRequest, emit: Callable[[GeneratePiece], None]
    ) -> GenerateResult | GenerateFailure:
        for _ in range(request.sampling.max_tokens):
            emit(GeneratePiece(str(self.version), self.version))
        return await self._answer(request)

    async def conversation(self, turns: Sequence[ChatTurn]) -> list[int]:
        if any(turn.role == "system" for turn in turns[1:]):
            raise PolicyError("invalid_request", "the chat template takes a system message at the start only")
        return [len(turn.text) for turn in turns]

    async def chat(self, request: ChatRequest) -> ChatAnswer:
        self.progress[request.request_id] = 0
        self.arrived.set()
        try:
            await self.answering.wait()
            return ChatResult(f"{request.turns[-1].text} {self.version}", self.version)
        finally:
            del self.progress[request.request_id]

    async def openai_application(self) -> AsgiApp:
        async def app(
            scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
        ) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            self.arrived.set()
            await self.answering.wait()
            await send({"type": "http.response.body", "body": b"%d" % self.version})

        return app

    async def update(self, folder: Path, version: int) -> None:
        self.update_began.set()
        await self.updating.wait()
        if self.breaks is not None:
            self.breaker.trip(self.breaks)
            raise PolicyError("engine_failed", self.breaks)
        self.version = version

    async def push(self, step: PushStep) -> None:
        if isinstance(step, FinishPush):
            self.version = step.version

    def held(self) -> Mapping[str, int]:
        return self.progress

    def unfinished(self) -> int:
        return len(self.progress)

    async def health(self) -> None:
        pass

    async def close(self) -> None:
        self.closed = True
