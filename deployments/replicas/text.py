"""The policy deployment: each replica runs one engine and never answers with older weights than a request asks for."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from ray import serve
from ray.util import metrics

from configs.policies import PolicyConfig
from deployments.engines.base import StartTokenEngine, TokenEngine
from deployments.engines.guarded import GuardedTokenEngine
from deployments.engines.vllm.settings import on_gpu
from deployments.errors import PolicyError
from deployments.protocol.act import ChatAnswer, ChatRequest, ChatTurn
from deployments.protocol.completion import Completion, CompletionAnswer, CompletionPart, CompletionRequest
from deployments.protocol.exchange import HttpCall, HttpPiece
from deployments.protocol.generate import GenerateFailure, GeneratePiece, GenerateRequest, GenerateResult, Sampling
from deployments.replicas.backlog import Backlog
from deployments.replicas.completions import TextCompletions, completion_of
from deployments.replicas.failures import failure
from deployments.replicas.hosted import HostedEngine
from deployments.replicas.node_port import listen_at_node
from deployments.replicas.running import Running
from deployments.weights.push_steps import FinishPush, OpenGroup, PushStep

if TYPE_CHECKING:
    from deployments.engines.vllm.openai import OpenAIRoutes

Answer = GenerateResult | GenerateFailure
WITHOUT_THE_ENGINE = ("/tokenize", "/detokenize", "/v1/models")


class PolicyReplica:
    """Owns one engine. A request that names a weight version above the engine's first makes the replica fetch it: the
    replica never answers with older weights than asked for, whether it is new, restarted or missed an announcement.
    """

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self,
        config: dict[str, Any],
        start_engine: StartTokenEngine,
        end_process: Callable[[int], object] = os._exit,
    ) -> None:
        """`config`: a PolicyConfig as plain data; `end_process`: ends this process at once with an exit code."""
        listen_at_node()
        self.config = PolicyConfig.model_validate(config)
        self._started = time.time()
        self._openai: OpenAIRoutes | None = None
        self._openai_lock = asyncio.Lock()
        self._completions: TextCompletions | None = None
        self._running = Running()
        self._backlog = Backlog(self.config.engine.max_num_seqs)
        self._measure()
        engine = GuardedTokenEngine(start_engine(self.config), self.config.replicas.no_progress_s)
        self.engine: TokenEngine = engine
        self._hosted = HostedEngine(engine, self.config, self._version_gauge.set, end_process)
        await self._hosted.start(self._warm_up if self.config.warmup else None)

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
        answers: list[Answer | ChatAnswer] = [*await self.engine.generate(requests)]
        if self.config.act.speaks:
            answers.append(await self.engine.chat(_first_look(deadline_s)))
        for answer in answers:
            if isinstance(answer, GenerateFailure):
                raise RuntimeError(f"the engine failed its warm-up: {answer.kind}: {answer.message}")

    async def generate(self, requests: Sequence[GenerateRequest]) -> list[Answer]:
        """All answers of a batch at once, in the order of the requests."""
        refused = await self._gate_batch(requests)
        if refused:
            self._count(refused)
            return [*refused]
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

    async def _generate_one(
        self, request: GenerateRequest, emit: Callable[[GeneratePiece], None] | None = None
    ) -> Answer:
        refused = await self._gate_batch([request])
        if refused:
            return refused[0]
        try:
            with self._backlog.place(request.remaining_s(time.time())):
                if emit is not None:
                    return await self.engine.stream(request, emit)
                return (await self.engine.generate([request]))[0]
        except PolicyError as error:
            return failure(request.request_id, error)

    async def _gate_batch(self, requests: Sequence[GenerateRequest | ChatRequest]) -> list[GenerateFailure]:
        """Waits until the engine holds the newest version asked for; failures for all when it cannot be had."""
        needed = max(request.min_weight_version for request in requests)
        if needed <= self.engine.version:
            return []
        try:
            await self.ensure_version(needed, min(request.deadline_s for request in requests))
        except PolicyError as error:
            return [failure(request.request_id, error) for request in requests]
        return []

    def _count(self, answers: Sequence[Answer | CompletionAnswer | ChatAnswer]) -> None:
        self._requests.inc(len(answers))
        tokens = sum(_sampled_tokens(answer) for answer in answers)
        if tokens:
            self._tokens.inc(tokens)
        for answer in answers:
            if isinstance(answer, GenerateFailure):
                self._failures.inc(1, {"kind": answer.kind})

    async def ensure_version(self, version: int, deadline_s: float = 60.0) -> int:
        """Returns the engine's version once it is at least `version`. Raises PolicyError; see `WeightUpdates.reach`."""
        return await self._hosted.ensure_version(version, deadline_s)

    async def push(self, step: PushStep) -> None:
        """A step of a learner's push, sent to all replicas alike (`deployments.weights.push.ServeControl`). Each takes
        its own range of NCCL ranks, by its rank among the replicas. Raises PolicyError."""
        if isinstance(step, OpenGroup):
            step = step.of_replica(serve.get_replica_context().rank.rank, self.config.engine.gpus)
        await self.engine.push(step)
        if isinstance(step, FinishPush):
            self._version_gauge.set(self.engine.version)

    async def status(self) -> dict[str, Any]:
        return {
            "policy": self.config.name,
            "model": self.config.model,
            "ready": True,
            "weight_version": self.engine.version,
            "unfinished_requests": self.engine.unfinished(),
            "pid": os.getpid(),
            "started": self._started,
            "device": "cuda" if on_gpu(self.config.engine) else "cpu",
        }

    async def served(self) -> PolicyConfig:
        """How this policy is served: what a run asks that joins."""
        return self.config

    async def check_health(self) -> None:
        """Serve replaces the replica when this raises."""
        await self.engine.health()

    async def complete(self, requests: Sequence[CompletionRequest]) -> AsyncIterator[list[tuple[int, CompletionPart]]]:
        """Plain text answers, many in one call, as they get ready (with their place in `requests`): the common cases of
        `/v1/completions` and `/v1/chat/completions` without vLLM's server."""
        async with contextlib.aclosing(self._running.pieces_as_ready(requests, self._complete_one)) as parts:
            async for placed in parts:
                if answers := [part for _, part in placed if not isinstance(part, GeneratePiece)]:
                    self._count(answers)
                yield placed

    async def _complete_one(
        self, request: CompletionRequest, emit: Callable[[CompletionPart], None]
    ) -> CompletionAnswer:
        end = time.monotonic() + request.deadline_s
        try:
            self._backlog.check(request.deadline_s)  # before a prompt is rendered in vain
            async with asyncio.timeout(request.deadline_s):
                tokens = await (await self._texts()).tokens_of(request)
        except PolicyError as error:
            return failure(request.request_id, error)
        except TimeoutError:
            return GenerateFailure(request.request_id, "deadline_exceeded", "the prompt was not ready in time")
        if isinstance(tokens, GenerateFailure):
            return tokens
        tokens = replace(tokens, deadline_s=max(0.0, end - time.monotonic()))
        answer = await self._generate_one(tokens, emit if request.stream else None)
        return answer if isinstance(answer, GenerateFailure) else completion_of(tokens, answer)

    async def chat(self, requests: Sequence[ChatRequest]) -> AsyncIterator[list[tuple[int, ChatAnswer]]]:
        """Conversations, which may hold images, as they get ready (with their place in `requests`)."""
        async with contextlib.aclosing(self._running.as_ready(requests, self._chat_one)) as answers:
            async for placed in answers:
                self._count([answer for _, answer in placed])
                yield placed

    async def _chat_one(self, request: ChatRequest) -> ChatAnswer:
        refused = await self._gate_batch([request])
        if refused:
            return refused[0]
        try:
            with self._backlog.place(request.remaining_s(time.time())):
                return await self.engine.chat(request)
        except PolicyError as error:
            return failure(request.request_id, error)

    async def _texts(self) -> TextCompletions:
        if self._completions is None:
            from transformers import AutoTokenizer

            tokenizer = await asyncio.to_thread(AutoTokenizer.from_pretrained, self.config.model)
            self._completions = TextCompletions(tokenizer, self.config.engine.max_model_len, self.engine.conversation)
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
            with self._place(call):
                async with contextlib.aclosing(routes.call(call, self.engine.version)) as pieces:
                    async for piece in pieces:
                        yield piece
        except PolicyError as error:
            yield failure(call.request_id, error)

    def _place(self, call: HttpCall) -> contextlib.AbstractContextManager[None]:
        if call.path in WITHOUT_THE_ENGINE:
            return contextlib.nullcontext()
        return self._backlog.place(call.remaining_s(time.time()))

    async def _openai_routes(self) -> OpenAIRoutes:
        async with self._openai_lock:  # not the weights': making the application takes seconds
            if self._openai is None:
                from deployments.engines.vllm.openai import OpenAIRoutes

                self._openai = OpenAIRoutes(await self.engine.openai_application())
        return self._openai

    async def __del__(self) -> None:
        """Serve calls this once the replica's requests are drained."""
        if hasattr(self, "_hosted"):
            await self._hosted.close()


def _first_look(deadline_s: float) -> ChatRequest:
    """One small image and a grammar: what a policy that acts will be asked for."""
    turn = ChatTurn("user", "What do you see?", (np.zeros((56, 56, 3), np.uint8),))
    schema: dict[str, object] = {"type": "object", "properties": {"seen": {"type": "boolean"}}, "required": ["seen"]}
    name = f"warm-up-{uuid.uuid4().hex}"
    return ChatRequest(name, [turn], time.time() + deadline_s, max_tokens=16, json_schema=schema)


def _sampled_tokens(answer: Answer | CompletionAnswer | ChatAnswer) -> int:
    if isinstance(answer, Completion):
        return answer.completion_tokens
    return len(answer.token_ids) if isinstance(answer, GenerateResult) else 0
