"""The policy deployment: one vLLM engine a replica, gated by weight version."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import serve
from ray.util import metrics

from configs.serving import PolicyConfig
from deployments.engines.vllm.engine import VllmEngine
from deployments.engines.vllm.settings import on_gpu, process_environment
from deployments.errors import PolicyError
from deployments.protocol.completion import Completion, CompletionAnswer, CompletionRequest
from deployments.protocol.exchange import HttpCall, HttpPiece
from deployments.protocol.generate import GenerateFailure, GenerateRequest, GenerateResult, Sampling
from deployments.replicas.completions import TextCompletions
from deployments.replicas.running import Running
from deployments.weights.manifest import WeightsError
from deployments.weights.store import WeightStore

if TYPE_CHECKING:
    from deployments.engines.vllm.openai import OpenAIRoutes

logger = logging.getLogger("ray.serve")


Answer = GenerateResult | GenerateFailure


class PolicyReplica:
    """Owns one engine. A request that names a weight version above the engine's first makes the replica fetch it: the
    replica never answers with older weights than asked for, whether it is new, restarted or missed an announcement.
    """

    async def __init__(self, config: dict[str, Any]) -> None:  # type: ignore[misc]  # Serve awaits it
        self.config = PolicyConfig.model_validate(config)
        os.environ.update(process_environment(self.config.engine))
        self._started = time.time()
        self._gate = asyncio.Lock()
        self._openai: OpenAIRoutes | None = None
        self._openai_lock = asyncio.Lock()
        self._completions: TextCompletions | None = None
        self._running = Running()
        self._store = WeightStore(self.config.weights_root) if self.config.weights_root else None
        self.engine = VllmEngine.start(
            self.config.engine, self.config.model, weight_updates=self.config.weights_root is not None
        )
        self._cache = Path(tempfile.mkdtemp(prefix="rayward-weights-", dir=_same_disk(self.config.weights_root)))
        self._measure()
        if self.config.warmup:
            await self._warm_up()
        latest = self._store.latest() if self._store else None
        if latest is not None:
            await self.ensure_version(latest, deadline_s=self.config.replicas.start_deadline_s)

    def _measure(self) -> None:
        tags = {"policy": self.config.name}
        self._requests = metrics.Counter("rayward_serve_requests", "Generation requests", ("policy",))
        self._tokens = metrics.Counter("rayward_serve_tokens", "Sampled tokens", ("policy",))
        self._failures = metrics.Counter("rayward_serve_failures", "Failed generation requests", ("policy", "kind"))
        self._version_gauge = metrics.Gauge("rayward_serve_weight_version", "Weight version", ("policy",))
        for metric in (self._requests, self._tokens, self._version_gauge):
            metric.set_default_tags(tags)
        self._failures.set_default_tags({"policy": self.config.name})

    async def _warm_up(self) -> None:
        """The first request that asks for log-probabilities compiles for seconds: it must not be a user's."""
        sampling = Sampling(max_tokens=2, temperature=1.0)
        deadline_s = self.config.replicas.start_deadline_s
        requests = [
            GenerateRequest(f"warm-up-{uuid.uuid4().hex}", [1, 2, 3], s, deadline_s=deadline_s)
            for s in (sampling, replace(sampling, seed=0))
        ]
        for answer in await self.engine.generate(requests):
            if isinstance(answer, GenerateFailure):
                raise RuntimeError(f"the engine failed its warm-up: {answer.kind}: {answer.message}")

    async def generate(self, requests: Sequence[GenerateRequest]) -> list[Answer]:
        """All answers of a batch at once, in the order of the requests."""
        refused = await self._gate_batch(requests)
        if refused:
            self._count(refused)
            return refused
        answers = await self.engine.generate(requests)
        self._count(answers)
        return answers

    async def generate_stream(self, requests: Sequence[GenerateRequest]) -> AsyncIterator[list[tuple[int, Answer]]]:
        """(place in `requests`, answer), as they get ready: no short answer waits for a long one."""
        async with contextlib.aclosing(self._running.as_ready(requests, self._generate_one)) as answers:
            async for placed in answers:
                self._count([answer for _, answer in placed])
                yield placed

    async def abandon(self, request_ids: Sequence[str]) -> None:
        """The callers of these requests left: their generation ends within an engine step. Unknown ids are allowed."""
        self._running.abandon(request_ids)

    async def _generate_one(self, request: GenerateRequest) -> Answer:
        refused = await self._gate_batch([request])
        return refused[0] if refused else (await self.engine.generate([request]))[0]

    async def _gate_batch(self, requests: Sequence[GenerateRequest]) -> list[Answer]:
        """Waits until the engine holds the newest version asked for; failures for all when it cannot be had."""
        needed = max(request.min_weight_version for request in requests)
        if needed <= self.engine.version:
            return []
        try:
            await self.ensure_version(needed, min(request.deadline_s for request in requests))
        except PolicyError as error:
            return [GenerateFailure(r.request_id, error.kind, error.message) for r in requests]
        return []

    def _count(self, answers: Sequence[Answer | CompletionAnswer]) -> None:
        self._requests.inc(len(answers))
        tokens = sum(_sampled_tokens(answer) for answer in answers)
        if tokens:
            self._tokens.inc(tokens)
        for answer in answers:
            if isinstance(answer, GenerateFailure):
                self._failures.inc(1, {"kind": answer.kind})

    async def ensure_version(self, version: int, deadline_s: float = 60.0) -> int:
        """Returns the engine's version once it is at least `version`. Raises PolicyError("stale_weights")."""
        if self.engine.version >= version:
            return self.engine.version
        async with self._gate:  # waiters of the same version share one fetch
            if self.engine.version >= version:
                return self.engine.version
            if self._store is None:
                raise PolicyError(
                    "stale_weights",
                    f"weight version {version} was asked for, but policy {self.config.name!r} has no weights_root",
                )
            began = time.perf_counter()
            try:
                fetched = await asyncio.to_thread(self._store.fetch_at_least, version, deadline_s, self._cache)
            except WeightsError as error:
                raise PolicyError("stale_weights", str(error)) from error
            await self.engine.load_weights(str(fetched.folder), fetched.manifest.version)
            self._version_gauge.set(self.engine.version)
            logger.debug("weights %d in %.1f ms", self.engine.version, (time.perf_counter() - began) * 1e3)
            return self.engine.version

    async def push(self, call: str, argument: Any = None) -> None:
        """A learner's weight-sync call, sent to all replicas alike (`vllm_transfer_trainer.ServeControl`). Each takes
        its own range of NCCL ranks, by its rank among the replicas. Raises PolicyError."""
        if call == "init" and "rank_offset" in argument:
            rank = serve.get_replica_context().rank.rank
            argument = argument | {"rank_offset": argument["rank_offset"] + rank * self.config.engine.gpus}
        await self.engine.push(call, argument)
        if call == "finish":
            self._version_gauge.set(self.engine.version)

    async def status(self) -> dict[str, Any]:
        return {
            "policy": self.config.name,
            "model": self.config.model,
            "ready": True,
            "weight_version": self.engine.version,
            "pid": os.getpid(),
            "started": self._started,
            "device": "cuda" if on_gpu(self.config.engine) else "cpu",
        }

    async def check_health(self) -> None:
        """Serve replaces the replica when this raises."""
        await self.engine.check_health()

    async def complete(
        self, requests: Sequence[CompletionRequest]
    ) -> AsyncIterator[list[tuple[int, CompletionAnswer]]]:
        """Plain text completions, many in one call, as they get ready (with their place in `requests`): the common case
        of `/v1/completions` without vLLM's server."""
        async with contextlib.aclosing(self._running.as_ready(requests, self._complete_one)) as answers:
            async for placed in answers:
                self._count([answer for _, answer in placed])
                yield placed

    async def _complete_one(self, request: CompletionRequest) -> CompletionAnswer:
        texts = await self._texts()
        tokens = await texts.tokens_of(request)
        if isinstance(tokens, GenerateFailure):
            return tokens
        answer = await self._generate_one(tokens)
        return answer if isinstance(answer, GenerateFailure) else texts.text_of(tokens, answer)

    async def _texts(self) -> TextCompletions:
        if self._completions is None:
            from transformers import AutoTokenizer

            tokenizer = await asyncio.to_thread(AutoTokenizer.from_pretrained, self.config.model)
            self._completions = TextCompletions(tokenizer, self.config.engine.max_model_len)
        return self._completions

    async def openai(self, call: HttpCall) -> AsyncIterator[HttpPiece]:
        """One HTTP exchange with vLLM's own OpenAI routes, under the same gate and deadline as `generate`."""
        remaining_s = call.remaining_s(time.time())
        if remaining_s <= 0:
            yield GenerateFailure(call.request_id, "deadline_exceeded", "the request waited past its deadline")
            return
        try:
            await self.ensure_version(call.min_weight_version, remaining_s)
            routes = await self._openai_routes()
        except PolicyError as error:
            yield GenerateFailure(call.request_id, error.kind, error.message)
            return
        async with contextlib.aclosing(routes.call(call, self.engine.version)) as pieces:
            async for piece in pieces:
                yield piece

    async def _openai_routes(self) -> OpenAIRoutes:
        async with self._openai_lock:  # not the gate: making the application takes seconds
            if self._openai is None:
                from deployments.engines.vllm.openai import OpenAIRoutes

                self._openai = await OpenAIRoutes.create(self.engine.llm, self.config.model, self.config.name)
        return self._openai

    async def __del__(self) -> None:
        """Serve calls this once the replica's requests are drained."""
        if hasattr(self, "engine"):
            await self.engine.close()
        if hasattr(self, "_cache"):
            shutil.rmtree(self._cache, ignore_errors=True)


def _same_disk(root: str | None) -> str | None:
    """A folder on the store's own file system, where a version is brought by hard links instead of copies."""
    if root is None or "://" in root:
        return None
    parent = Path(root).parent
    return str(parent) if os.access(parent, os.W_OK) else None


def _sampled_tokens(answer: Answer | CompletionAnswer) -> int:
    if isinstance(answer, Completion):
        return answer.completion_tokens
    return len(answer.token_ids) if isinstance(answer, GenerateResult) else 0
