"""The deployment of a policy behind an API: each replica calls the provider, all of them under one set of limits."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from ray.util import metrics

from configs.policies import ProviderPolicy
from configs.providers import ModelLimits, check_keys, limits_for, load_rate_limits
from deployments.access.limiter import CallLimits
from deployments.access.provider_limits import ProviderLimits
from deployments.engines.provider import library
from deployments.engines.provider.calls import model_of
from deployments.engines.provider.engine import ProviderEngine
from deployments.engines.provider.redaction import Redaction, redact_logs, secrets_of
from deployments.errors import PolicyError
from deployments.protocol.act import ChatAnswer, ChatRequest
from deployments.protocol.exchange import HttpCall, HttpPiece
from deployments.protocol.generate import GenerateFailure
from deployments.replicas.failures import failure
from deployments.replicas.node_port import listen_at_node
from deployments.replicas.running import Running

logger = logging.getLogger("ray.serve")

ConnectLimits = Callable[[str, ModelLimits], CallLimits]  # model -> what holds back its calls


class ProviderReplica:
    """Calls the API for the ingress, with the API keys of its own environment."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self,
        config: dict[str, Any],
        start_engine: Callable[..., ProviderEngine] = ProviderEngine,
        environment: Mapping[str, str] = os.environ,
        connect_limits: ConnectLimits = ProviderLimits.connect,
    ) -> None:
        """`config`: a ProviderPolicy as plain data. Raises ConfigError for a model that nobody knows, and for a
        provider in rate_limits.yaml without its key."""
        listen_at_node()
        self.policy = ProviderPolicy.model_validate(config)
        self._started = time.time()
        self._running = Running()
        self._exchanges = 0  # through OpenAI's route
        redaction = Redaction(secrets_of(environment))
        redact_logs(redaction)
        litellm = await asyncio.to_thread(library.load)
        model = model_of(self.policy, litellm)
        limits = self._limits(environment, model.provider)
        held = connect_limits(f"{model.provider}/{model.bare_name}", limits) if limits else None
        self.engine = start_engine(self.policy, litellm, environment, held, redaction)
        self._limited = held is not None
        self._measure()

    def _limits(self, environment: Mapping[str, str], provider: str) -> ModelLimits | None:
        """What the file says about the policy's model; None: nothing."""
        if self.policy.rate_limits is None:
            return None
        limits = load_rate_limits(self.policy.rate_limits)
        check_keys(limits, environment)
        found = limits_for(limits, provider, self.policy.model)
        if found is None:
            logger.warning("%s says nothing about %s: not limited", self.policy.rate_limits, self.policy.model)
        return found

    def _measure(self) -> None:
        self._requests = metrics.Counter("rayward_provider_requests", "Requests to API providers", ("policy",))
        self._failures = metrics.Counter("rayward_provider_failures", "Failed requests", ("policy", "kind"))
        for metric in (self._requests, self._failures):
            metric.set_default_tags({"policy": self.policy.name})

    async def chat(self, requests: Sequence[ChatRequest]) -> AsyncIterator[list[tuple[int, ChatAnswer]]]:
        """(place in `requests`, answer), as they get ready."""
        async with contextlib.aclosing(self._running.as_ready(requests, self._chat_one)) as answers:
            async for placed in answers:
                self._count([answer for _, answer in placed])
                yield placed

    async def _chat_one(self, request: ChatRequest) -> ChatAnswer:
        try:
            return await self.engine(request)
        except PolicyError as error:  # as a value: an exception loses its fields on the way through Serve
            return failure(request.request_id, error)

    async def openai(self, call: HttpCall) -> AsyncIterator[HttpPiece]:
        """One exchange with the model on OpenAI's chat route: see `OpenAIChat.call`."""
        self._requests.inc(1)
        self._exchanges += 1
        try:
            async with contextlib.aclosing(self.engine.openai.call(call)) as pieces:
                async for piece in pieces:
                    if isinstance(piece, GenerateFailure):
                        self._failures.inc(1, {"kind": piece.kind})
                    yield piece
        finally:
            self._exchanges -= 1

    def _count(self, answers: Sequence[ChatAnswer]) -> None:
        self._requests.inc(len(answers))
        for answer in answers:
            if isinstance(answer, GenerateFailure):
                self._failures.inc(1, {"kind": answer.kind})

    async def abandon(self, request_ids: Sequence[str]) -> None:
        """The callers of these requests left: their calls end. Unknown ids are allowed."""
        self._running.abandon(request_ids)

    async def status(self) -> dict[str, Any]:
        return {
            "policy": self.policy.name,
            "model": self.policy.model,
            "provider": self.engine.model.provider,
            "ready": True,
            "weight_version": 0,
            "unfinished_requests": len(self._running) + self._exchanges,
            "rate_limits_configured": self._limited,
            "concurrency_limit": self.policy.concurrency,
            "timeout": self.policy.timeout_s,
            "pid": os.getpid(),
            "started": self._started,
            "device": "api",
        }

    async def served(self) -> ProviderPolicy:
        """How this policy is served."""
        return self.policy

    async def check_health(self) -> None:
        """Always healthy: a replica that is replaced cannot mend a provider, and asking one costs money."""
