"""The policy engine: vLLM's AsyncLLM as a `TokenEngine`. Tokens in, tokens out, versions on every answer."""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.policies import PolicyConfig
from deployments.engines.base import AsgiApp, Breaker, EngineUnhealthy
from deployments.engines.vllm import chat, images
from deployments.engines.vllm.heartbeat import Heartbeat
from deployments.engines.vllm.openai import openai_application
from deployments.engines.vllm.settings import engine_arguments, noise_seed, process_environment
from deployments.engines.vllm.weights import EngineWeights, VllmWeightCalls
from deployments.errors import PolicyError
from deployments.protocol.act import ChatAnswer, ChatRequest, ChatResult, ChatTurn
from deployments.protocol.generate import (
    NEVER,
    GenerateFailure,
    GeneratePiece,
    GenerateRequest,
    GenerateResult,
    Sampling,
)
from deployments.weights.push_steps import PushStep

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM

CACHED_PARAMETERS = 256


class VllmEngine:
    """One vLLM engine (its workers are child processes).

    Owner: a policy replica. `generate` may be called from many tasks at once; an update of the weights waits for none
    of them: it freezes the scheduler between two decode steps, swaps the weights and resumes, so that an answer in
    flight may hold tokens of two versions (its `weight_version` is the older one).
    """

    def __init__(self, config: PolicyConfig) -> None:
        self._config = config
        self._breaker = Breaker()
        self._parameters = lru_cache(CACHED_PARAMETERS)(self._build_sampling)

    async def load(self) -> None:
        """Starts vLLM; only now is it imported. Sets the variables that it reads in this process."""
        config = self._config
        os.environ.update(process_environment(config.engine))
        seed = noise_seed(config.engine.seed, uuid.uuid4().hex)
        engine = config.engine.model_copy(update={"seed": seed})
        arguments = engine_arguments(engine, config.model, weight_updates=config.weights_root is not None)
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        if config.act.speaks:
            arguments.setdefault("structured_outputs_config", _compact_json())
        self.attach(AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments)))

    def attach(self, llm: AsyncLLM) -> None:
        """Works with this engine of vLLM's, which is loaded."""
        self._llm = llm
        self._weights = EngineWeights(VllmWeightCalls(llm), self._breaker, workers=self._config.engine.gpus)
        self._heartbeat = Heartbeat(llm.engine_core.is_scheduler_paused_async)
        self._max_model_len: int = llm.model_config.max_model_len
        self._vocab_size: int = llm.model_config.get_vocab_size()

    @property
    def version(self) -> int:
        return self._weights.version

    @property
    def breaker(self) -> Breaker:
        return self._breaker

    async def openai_application(self) -> AsgiApp:
        return await openai_application(
            self._llm, self._config.model, self._config.name, self._config.engine.tool_call_parser
        )

    async def generate(self, requests: Sequence[GenerateRequest]) -> list[GenerateResult | GenerateFailure]:
        """Answers in the order of the requests; one that fails does not touch the others."""
        if len(requests) == 1:
            return [await self._answer(requests[0])]
        return list(await asyncio.gather(*map(self._answer, requests)))

    async def stream(
        self, request: GenerateRequest, emit: Callable[[GeneratePiece], None]
    ) -> GenerateResult | GenerateFailure:
        return await self._answer(request, emit)

    async def conversation(self, turns: Sequence[ChatTurn]) -> list[int]:
        with self._failures_translated():
            prompt = await chat.rendered(self._llm, turns)
        return list(prompt["prompt_token_ids"])

    async def _answer(
        self, request: GenerateRequest, emit: Callable[[GeneratePiece], None] | None = None
    ) -> GenerateResult | GenerateFailure:
        try:
            async with asyncio.timeout(request.deadline_s):
                return await self._generate_one(request, emit)
        except TimeoutError:
            message = f"no answer within {request.deadline_s:g} s; raise the deadline, or add replicas"
            return GenerateFailure(request.request_id, "deadline_exceeded", message)
        except PolicyError as error:
            return GenerateFailure(request.request_id, error.kind, error.message)

    async def _generate_one(
        self, request: GenerateRequest, emit: Callable[[GeneratePiece], None] | None
    ) -> GenerateResult:
        self._check(request)
        arrival = time.perf_counter()
        first_version = self.version
        prompt = await self._prompt(request)
        ids: list[int] = []
        texts: list[str] = []

        def collect(part: Any) -> None:
            ids.extend(part.token_ids)
            if part.text:
                texts.append(part.text)
                if emit is not None:
                    emit(GeneratePiece(part.text, first_version))

        with self._failures_translated():
            sampling = self._sampling(request.sampling, emit is not None)
            answer = await self._final(prompt, sampling, request.request_id, collect)
        return GenerateResult(
            request_id=request.request_id,
            token_ids=ids,
            logprobs=_chosen_logprobs(answer.logprobs, ids) if request.sampling.logprobs else [],
            weight_version=first_version,
            finish_reason=answer.finish_reason,
            weight_version_last=self.version,
            infer_ms=(time.perf_counter() - arrival) * 1e3,
            text="".join(texts),
        )

    async def _prompt(self, request: GenerateRequest) -> dict[str, Any]:
        if not request.images:
            return {"type": "token", "prompt_token_ids": list(request.token_ids)}
        with self._failures_translated():
            return await images.prompt_with(self._llm, request.token_ids, request.images)

    async def chat(self, request: ChatRequest) -> ChatAnswer:
        """The next turn of a conversation with images; a failure instead of an exception."""
        arrival, version = time.perf_counter(), self.version
        try:
            async with asyncio.timeout(request.remaining_s(time.time())):
                with self._failures_translated():
                    prompt = await chat.rendered(self._llm, request.turns)
                    sampling = chat.sampling(request, len(prompt["prompt_token_ids"]), self._max_model_len)
                    ready = time.perf_counter()
                    answer = await self._final(prompt, sampling, request.request_id)
        except TimeoutError:
            return GenerateFailure(request.request_id, "deadline_exceeded", "no answer within the deadline")
        except PolicyError as error:
            return GenerateFailure(request.request_id, error.kind, error.message)
        queue_ms, infer_ms = (ready - arrival) * 1e3, (time.perf_counter() - ready) * 1e3
        return ChatResult(answer.text, version, queue_ms, infer_ms)

    async def _final(
        self, prompt: Any, sampling: Any, request_id: str, collect: Callable[[Any], None] = lambda part: None
    ) -> Any:
        """The last part of vLLM's answer (the only one, if `sampling` does not ask for parts), after `collect` got it
        as all others. Raises vLLM's errors, and PolicyError for an answer that was ended early."""
        answer: Any = None
        async for output in self._llm.generate(prompt, sampling, request_id):
            answer = output.outputs[0]
            collect(answer)
        if answer.finish_reason not in ("stop", "length"):
            raise PolicyError("engine_failed", f"vLLM ended the request as {answer.finish_reason!r}")
        return answer

    @contextmanager
    def _failures_translated(self) -> Iterator[None]:
        """Raises PolicyError for vLLM's errors, and trips the breaker when its process is gone."""
        from vllm.exceptions import VLLMClientError
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        try:
            yield
        except EngineDeadError as error:
            self._breaker.trip("vLLM's engine process died")
            raise PolicyError("engine_failed", f"vLLM stopped working on the request: {error!r}") from error
        except EngineGenerateError as error:
            raise PolicyError("engine_failed", f"vLLM stopped working on the request: {error!r}") from error
        except (VLLMClientError, ValueError) as error:
            raise PolicyError("invalid_request", str(error)) from error

    def _check(self, request: GenerateRequest) -> None:
        if not request.token_ids:
            raise PolicyError("invalid_request", "the prompt is empty: send at least one token")
        if not set(map(type, request.token_ids)) <= {int}:
            raise PolicyError("invalid_request", "token ids must be integers")
        total = len(request.token_ids) + request.sampling.max_tokens
        if total > self._max_model_len:
            raise PolicyError(
                "too_large",
                f"prompt of {len(request.token_ids)} tokens plus max_tokens {request.sampling.max_tokens} is over "
                f"max_model_len {self._max_model_len}: shorten the history or raise engine.max_model_len",
            )
        if min(request.token_ids) < 0 or max(request.token_ids) >= self._vocab_size:
            raise PolicyError("invalid_request", f"token ids must lie in 0..{self._vocab_size - 1}")

    def _sampling(self, sampling: Sampling, in_parts: bool) -> Any:
        if sampling.seed is not None or sampling.json_schema is not None:
            return self._build_sampling(sampling, in_parts)  # never the same twice, and not hashable
        return self._parameters(sampling, in_parts)

    def _build_sampling(self, sampling: Sampling, in_parts: bool) -> Any:
        from vllm.sampling_params import RequestOutputKind, SamplingParams, StructuredOutputsParams

        constraint = None
        if sampling.regex is not None or sampling.json_schema is not None:
            constraint = StructuredOutputsParams(regex=sampling.regex, json=sampling.json_schema)
        return SamplingParams(
            temperature=sampling.temperature,
            max_tokens=sampling.max_tokens,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            min_p=sampling.min_p,
            seed=sampling.seed,
            stop_token_ids=list(sampling.stop_token_ids),
            # added to the logits; a list of all other tokens would travel to vLLM's process with every request
            logit_bias=dict.fromkeys(sampling.banned_token_ids, NEVER) or None,
            structured_outputs=constraint,
            logprobs=0 if sampling.logprobs else None,  # 0: the chosen token's own
            flat_logprobs=True,
            ignore_eos=sampling.ignore_eos,
            detokenize=sampling.text,
            output_kind=RequestOutputKind.DELTA if in_parts else RequestOutputKind.FINAL_ONLY,
            skip_clone=True,
        )

    async def update(self, folder: Path, version: int) -> None:
        """See `Engine.update`. Requests in flight go on afterwards."""
        await self._weights.pull(folder, version)

    async def push(self, step: PushStep) -> None:
        await self._weights.push(step)

    def held(self) -> Mapping[str, int]:
        """The tokens that vLLM has given back so far, also of requests that came through its OpenAI routes."""
        if self._weights.paused:
            return {}
        return {
            request_id: 0 if state.detokenizer is None else state.detokenizer.num_output_tokens()
            for request_id, state in self._llm.output_processor.request_states.items()
        }

    def unfinished(self) -> int:
        return self._llm.output_processor.get_num_unfinished_requests()

    async def health(self) -> None:
        """Raises EngineUnhealthy when vLLM's processes or threads are gone, or when its process does not answer."""
        if self._llm.errored:
            raise EngineUnhealthy("vLLM's engine process died, or its answers are read no more")
        if self._weights.paused:
            self._heartbeat.excuse()  # an update keeps the process busy, and has a deadline of its own
        silent_s, limit_s = self._heartbeat.silent_s(), self._config.replicas.no_progress_s
        if silent_s >= limit_s:
            raise EngineUnhealthy(f"vLLM's process has not answered for {silent_s:.0f} s (no_progress_s: {limit_s:g})")

    async def close(self) -> None:
        if hasattr(self, "_llm"):
            await asyncio.to_thread(self._llm.shutdown)  # waits for processes, which may not listen


def _chosen_logprobs(logprobs: Any, token_ids: list[int]) -> list[float]:
    """The sampled tokens' own values out of vLLM's flat arrays (each position lists the sampled token first)."""
    if hasattr(logprobs, "start_indices"):
        return [float(logprobs.logprobs[start]) for start in logprobs.start_indices]
    return [float(entry[token].logprob) for entry, token in zip(logprobs, token_ids, strict=True)]


def _compact_json() -> Any:
    """White space between the parts of a JSON answer has no end in a grammar: a weak model fills its tokens with it.
    vLLM reads this setting of the engine alone (that of a request is ignored), and wants a backend named with it."""
    from vllm.config import StructuredOutputsConfig

    return StructuredOutputsConfig(backend="xgrammar", disable_any_whitespace=True)
