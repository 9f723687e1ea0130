"""One decision of a policy that acts, the same for every transport: session, prompt, model, parser, safety."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Protocol, TypeVar

from configs.policies import AnyPolicy, ChunkPolicy
from configs.serving import ServeConfig
from deployments.acting.arm.policy import ArmPolicy
from deployments.acting.chunked import ChunkedPolicy
from deployments.acting.counts import Counts
from deployments.acting.freshest import Freshest
from deployments.acting.player import Player
from deployments.acting.sessions import Sessions
from deployments.errors import PolicyError
from deployments.protocol.act import ActRequest, ActResult, Chat, Chunks, PolicyMetadata, Role, is_one_client
from deployments.protocol.game import PlayRequest, PlayResult

Q = TypeVar("Q", ActRequest, PlayRequest)
A = TypeVar("A", ActResult, PlayResult)


class Actor(Protocol):
    """A policy that answers `act`. Raises PolicyError."""

    def answers_without_model(self, request: ActRequest) -> ActResult | None: ...

    async def prepare(self) -> None: ...

    async def check(self, request: ActRequest) -> None: ...

    async def infer(self, request: ActRequest) -> ActResult: ...

    def describe(self, metadata: PolicyMetadata) -> PolicyMetadata: ...


class Acting:
    """All that a transport calls. One object per ingress process; sessions are its own.

    `policy`: a policy's name; None: the only policy that can answer, if there is exactly one. Every method raises
    PolicyError. Policies may come and go: see `add` and `remove`.
    """

    def __init__(
        self,
        config: ServeConfig,
        chats: Mapping[str, Chat],
        chunks: Mapping[str, Chunks],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`chats`, `chunks`: how each policy is asked, by its name. Raises ConfigError for a policy that cannot act as
        its configuration says."""
        self.counts = Counts()
        self._clock = clock
        self._policies: dict[str, AnyPolicy] = {}
        self._sessions: dict[str, Sessions] = {}
        self._actors: dict[str, Actor] = {}
        self._players: dict[str, Player] = {}
        self._versions: dict[str, int] = {}
        self._acts: Freshest[ActRequest, tuple[ActResult, float]] = Freshest()
        self._plays: Freshest[PlayRequest, tuple[PlayResult, float]] = Freshest()
        for policy in config.policies:
            self.add(policy, chats.get(policy.name), chunks.get(policy.name))

    def add(self, policy: AnyPolicy, chat: Chat | None, chunks: Chunks | None) -> None:
        """From now on the policy can be asked, without anything remembered of an earlier one of its name. Raises
        ConfigError for a policy that cannot act as its configuration says."""
        name, config = policy.name, policy.act
        sessions = Sessions(config.max_sessions, config.max_history_mib * 2**20, config.session_idle_s)
        actor: Actor | None = None
        if chunks is not None:
            actor = ChunkedPolicy(name, config, chunks, sessions, self.counts)
        if chat is not None and config.arm is not None:
            actor = ArmPolicy(name, config.arm, config, chat, sessions, self.counts)
        if actor is not None:
            self._actors[name] = actor
        if chat is not None and config.game is not None:
            self._players[name] = Player(name, config.game, config, chat, self.counts)
        self._policies[name], self._sessions[name], self._versions[name] = policy, sessions, 0

    def remove(self, name: str) -> None:
        """The policy is not found any more, and its sessions are forgotten. Requests under way are answered."""
        for known in (self._policies, self._sessions, self._versions, self._actors, self._players):
            known.pop(name, None)

    async def act(self, policy: str | None, request: ActRequest) -> ActResult:
        """Actions of a robot: [1, 7] of an arm behind a vision-language policy, [horizon, D] of a chunk policy."""
        name, arrived = _chosen(policy, self._actors, request.request_id), self._clock()
        actor, config = self._actors[name], self._policies[name].act
        async with self._bounded(name, request):
            result = actor.answers_without_model(request)
            if result is None:
                await actor.check(request)
                # A request with committed actions or fixed noise asks for an answer that fits no other request.
                alone = request.committed is not None or request.noise_seed is not None
                key = (name, request.session_id, request.observation.instruction, request.statistics)
                result = await self._inferred(
                    name, self._acts, key if config.freshest and not alone else None, request, actor.infer
                )
            self.counts.answers[name, "act"] += 1
            return _timed(result, request.request_id, arrived, request.observation.taken_unix_s, self._clock())

    async def play(self, policy: str | None, request: PlayRequest) -> PlayResult:
        """The action of a MineRL player."""
        name, arrived = _chosen(policy, self._players, request.request_id), self._clock()
        player, config = self._players[name], self._policies[name].act
        async with self._bounded(name, request):
            player.check(request)
            key = (name, request.session_id, request.task)
            result = await self._inferred(name, self._plays, key if config.freshest else None, request, player.infer)
            self.counts.answers[name, "play"] += 1
            result = replace(result, step=request.step)
            return _timed(result, request.request_id, arrived, request.taken_unix_s, self._clock())

    async def reset(self, policy: str | None, session_id: str) -> None:
        """Forgets a session; one that is not known, also of a policy that is not, is no error. Without a policy: with
        every policy."""
        for name, sessions in self._sessions.items():
            if policy is None or policy == name:
                sessions.forget((name, session_id))

    def metadata(self, policy: str | None) -> PolicyMetadata:
        """What is known of a policy now; the shape of a chunk policy only after `described` or its first answer."""
        name = policy if policy in self._policies else _chosen(policy, {**self._actors, **self._players}, "")
        assert name is not None
        config = self._policies[name]
        acts: tuple[Role, ...] = ("act",) if name in self._actors else ()
        plays: tuple[Role, ...] = ("play",) if name in self._players else ()
        model = config.checkpoint if isinstance(config, ChunkPolicy) else config.model
        known = PolicyMetadata(name, config.kind, model, (*acts, *plays), weight_version=self._versions[name])
        return self._actors[name].describe(known) if name in self._actors else known

    async def described(self, policy: str | None, deadline_unix_s: float) -> PolicyMetadata:
        """As `metadata`, but asks a chunk policy for its shape first if it is not known yet."""
        name = self.metadata(policy).name
        if name in self._actors:
            async with _deadline(deadline_unix_s - self._clock()):
                await self._actors[name].prepare()
        return self.metadata(name)

    async def _inferred(
        self,
        name: str,
        line: Freshest[Q, tuple[A, float]],
        key: Hashable | None,
        request: Q,
        infer: Callable[[Q], Awaitable[A]],
    ) -> A:
        """The policy's answer to the request, or to a newer one with the same key that came while it waited; with `key`
        None to the request alone. The time that it waited for its inference counts as queued."""

        async def answer(requests: Sequence[Q]) -> tuple[A, float]:
            started = self._clock()
            return await infer(_newest(requests)), started

        arrived = self._clock()
        if key is None or not is_one_client(request.session_id):
            (result, started), seen = await answer([request]), request
        else:
            (result, started), seen = await line.answer(key, request, answer)
        if seen is not request and seen.request_id != request.request_id:
            self.counts.superseded[name, "act" if isinstance(request, ActRequest) else "play"] += 1
        if name in self._versions:  # else it was removed meanwhile
            self._versions[name] = max(self._versions[name], result.weight_version)
        waited_ms = max(0.0, started - arrived) * 1000
        return replace(result, observation_id=seen.request_id, queue_ms=result.queue_ms + waited_ms)

    @asynccontextmanager
    async def _bounded(self, name: str, request: ActRequest | PlayRequest) -> AsyncIterator[None]:
        """Ends with the request's deadline; a failure is counted and bears the request's own id, because one inference
        may have failed for several requests."""
        try:
            async with _deadline(request.remaining_s(self._clock())):
                yield
        except PolicyError as error:
            self.counts.failures[name, error.kind] += 1
            raise error.of_request(request.request_id) from error


@asynccontextmanager
async def _deadline(remaining_s: float) -> AsyncIterator[None]:
    late = PolicyError("deadline_exceeded", "no answer within the deadline")
    if remaining_s <= 0:
        raise late
    try:
        async with asyncio.timeout(remaining_s):
            yield
    except TimeoutError as error:
        raise late from error


def _chosen(policy: str | None, fitting: Mapping[str, object], request_id: str) -> str:
    """The policy of that name; for None the only one that fits. Raises PolicyError("not_found")."""
    if policy is not None and policy in fitting:
        return policy
    if policy is None and len(fitting) == 1:
        return next(iter(fitting))
    known = ", ".join(fitting) or "none"
    asked = "name a policy" if policy is None else f"no policy {policy[:80]!r} answers this"
    raise PolicyError("not_found", f"{asked}; those that do: {known}", request_id)


def _newest(requests: Sequence[Q]) -> Q:
    """The last request, with the patience and the demand for new weights of the most patient and demanding one."""
    return replace(
        requests[-1],
        deadline_unix_s=max(request.deadline_unix_s for request in requests),
        min_weight_version=max(request.min_weight_version for request in requests),
    )


def _timed(result: A, request_id: str, arrived: float, taken: float | None, now: float) -> A:
    """`taken`: by the clock of the sender, which may be ahead of ours; an age is never negative."""
    age_s = max(0.0, now - (arrived if taken is None else taken))
    return replace(result, request_id=request_id, total_ms=(now - arrived) * 1000, observation_age_ms=age_s * 1000)
