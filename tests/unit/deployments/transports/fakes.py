"""An `Acting` whose answers a test decides, and keys that know one key."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import numpy as np

from configs.serving import ServeConfig
from deployments.errors import PolicyError
from deployments.protocol.act import ActRequest, ActResult, PolicyMetadata
from deployments.protocol.game import PlayRequest, PlayResult, no_op
from deployments.transports.front import Front
from deployments.transports.policies import ServedPolicies

KEY = "the-one-key"
CHUNKS = {"kind": "chunks", "name": "arm", "checkpoint": "made-up"}


def config(**changes: object) -> ServeConfig:
    return ServeConfig.parse({"policies": [CHUNKS], "grpc": {}, **changes})


async def answered(request: ActRequest) -> ActResult:
    """Two actions: the mean of each frame's red channel, and the state."""
    assert request.observation.state is not None
    reds = [0.0 if frame is None else float(frame[..., 0].mean()) for frame in request.observation.images]
    row = np.array([*reds, *request.observation.state], np.float32)
    return ActResult(
        request.request_id,
        np.stack([row, row + 1]),
        weight_version=7,
        infer_ms=12.5,
        observation_age_ms=3.0,
        interventions=("clipped",),
        observation_id=request.request_id,
    )


class FakeActing:
    """Answers by `answer`. Keeps what it was asked, and which sessions were forgotten."""

    def __init__(self, answer: Callable[[ActRequest], Awaitable[ActResult]] = answered) -> None:
        self.answer = answer
        self.asked: list[ActRequest] = []
        self.policies: list[str | None] = []
        self.forgotten: list[str] = []
        self.cancelled = asyncio.Event()
        self.begun = asyncio.Event()
        self._changed = asyncio.Condition()

    async def act(self, policy: str | None, request: ActRequest) -> ActResult:
        self.asked.append(request)
        self.policies.append(policy)
        self.begun.set()
        await self._tell()
        try:
            return await self.answer(request)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    async def play(self, policy: str | None, request: PlayRequest) -> PlayResult:
        return PlayResult(request.request_id, no_op(), "nothing to do", request.step, weight_version=7)

    async def reset(self, policy: str | None, session_id: str) -> None:
        self.forgotten.append(session_id)
        await self._tell()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Returns once it holds; it is looked at whenever something was asked or forgotten."""
        async with self._changed:
            await self._changed.wait_for(condition)

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def metadata(self, policy: str | None) -> PolicyMetadata:
        return PolicyMetadata(
            "arm", "chunks", "made-up", ("act",), horizon=2, action_dim=3, cameras=2, resolution=(8, 8)
        )

    async def described(self, policy: str | None, deadline_unix_s: float) -> PolicyMetadata:
        return self.metadata(policy)


class OneKey:
    async def authenticate(self, presented: str | None) -> str:
        if presented != KEY:
            raise PolicyError("unauthenticated", "missing or invalid API key")
        return "lab"


class NoKeys:
    async def authenticate(self, presented: str | None) -> str:
        return ""


def front(acting: FakeActing | None = None, keys: OneKey | NoKeys | None = None, **changes: object) -> Front:
    return Front(acting or FakeActing(), keys or NoKeys(), ServedPolicies(config(**changes)))
