"""What a replica needs of an inference engine. Replicas program against these protocols, never against vLLM.

To add an engine: implement `TokenEngine` or `ChunkEngine`, and name it in `deployments.app` under a new
`PolicyConfig.kind`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from configs.policies import ChunkPolicy, PolicyConfig
from deployments.protocol.act import ChatAnswer, ChatRequest, ChatTurn, ChunkAnswer, ChunkRequest, ChunkShape
from deployments.protocol.generate import GenerateFailure, GeneratePiece, GenerateRequest, GenerateResult
from deployments.weights.push_steps import PushStep

# An ASGI 3 application: `await app(scope, receive, send)` is one HTTP exchange.
AsgiApp = Callable[[dict[str, Any], Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]]


class EngineUnhealthy(RuntimeError):
    """The engine cannot answer any more, and its replica must be replaced; the message says why."""


class Breaker:
    """Whether an engine may still be used. It trips once, for good; whoever listens is told at once."""

    def __init__(self) -> None:
        self.reason: str | None = None
        self._listeners: list[Callable[[str], None]] = []

    def trip(self, reason: str) -> None:
        """The first reason stays; later calls change nothing."""
        if self.reason is None:
            self.reason = reason
            for listener in self._listeners:
                listener(reason)

    def listen(self, listener: Callable[[str], None]) -> None:
        """Calls `listener(reason)` when the breaker trips, now if it already has."""
        if self.reason is None:
            self._listeners.append(listener)
        else:
            listener(self.reason)


class Engine(Protocol):
    """One copy of a model that answers requests. Owner: a replica. All methods run in the replica's event loop."""

    @property
    def version(self) -> int:
        """The weight version that the next request is answered with."""

    @property
    def breaker(self) -> Breaker:
        """Tripped by the engine when it may never answer again: its process died, or it holds parts of two versions."""

    async def load(self) -> None:
        """Loads the model; takes seconds to minutes. Called once, before anything else."""

    async def update(self, folder: Path, version: int) -> None:
        """Takes up the version that lies in `folder`; nothing if the engine holds it or a later one.

        Must not be cancelled. Raises PolicyError("stale_weights") with the old weights still in use, or
        PolicyError("engine_failed") with the breaker tripped.
        """

    async def push(self, step: PushStep) -> None:
        """One step of a learner that pushes weights. Raises PolicyError, also where the engine takes no pushes."""

    def held(self) -> Mapping[str, int]:
        """Requests that the engine works on, in the order in which they arrived -> a number that grows with each one's
        progress (tokens so far). Empty while the engine is paused for an update, when no request can progress."""

    def unfinished(self) -> int:
        """Requests that are neither answered nor aborted, also while the engine is paused."""

    async def health(self) -> None:
        """Raises EngineUnhealthy. Answers at once, whatever state the engine is in."""

    async def close(self) -> None:
        """Ends all that the engine started; may be called twice."""


class TokenEngine(Engine, Protocol):
    """An engine of a language model."""

    async def generate(self, requests: Sequence[GenerateRequest]) -> list[GenerateResult | GenerateFailure]:
        """Answers in the order of the requests, each within its deadline; one that fails does not touch the others."""

    async def stream(
        self, request: GenerateRequest, emit: Callable[[GeneratePiece], None]
    ) -> GenerateResult | GenerateFailure:
        """As `generate` of one request with `Sampling.text`. Calls `emit` with each piece of the text as it comes: all
        pieces together are the text of the result."""

    async def conversation(self, turns: Sequence[ChatTurn]) -> list[int]:
        """The prompt's token ids [T] for the next turn of a conversation without images. Raises PolicyError for what
        the model's chat template cannot take."""

    async def chat(self, request: ChatRequest) -> ChatAnswer:
        """The next turn of a conversation, which may hold images; a failure is an answer, too."""

    async def openai_application(self) -> AsgiApp:
        """The OpenAI API around this engine, without a server. Each call makes another one; takes seconds."""


@dataclass(frozen=True, slots=True)
class DeviceStatus:
    """A device and its memory in GB; zeros for a CPU."""

    name: str
    memory_used_gb: float = 0.0
    memory_total_gb: float = 0.0


class ChunkDescribed(Protocol):
    """What is known of a chunk policy, whoever made it."""

    @property
    def name(self) -> str: ...

    @property
    def shape(self) -> ChunkShape: ...


class ChunkEngine(Engine, Protocol):
    """An engine of a robot policy that answers with chunks of actions."""

    async def act(self, request: ChunkRequest) -> ChunkAnswer:
        """Answers within the request's deadline; requests that wait at the same time share a forward pass. Cancelling
        the call takes the request out of the next pass."""

    @property
    def description(self) -> ChunkDescribed:
        """What the policy takes and gives."""

    def device(self) -> DeviceStatus:
        """Where the model runs."""


StartTokenEngine = Callable[[PolicyConfig], TokenEngine]  # makes an engine that is not loaded yet
StartChunkEngine = Callable[[ChunkPolicy], ChunkEngine]
