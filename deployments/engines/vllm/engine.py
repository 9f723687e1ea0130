"""The policy engine: vLLM's AsyncLLM behind `protocol.Engine`. Tokens in, tokens out, versions on every answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from configs.serving import EngineConfig
from deployments.errors import PolicyError
from deployments.protocol.generate import GenerateFailure, GenerateRequest, GenerateResult, Sampling

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM
from deployments.engines.vllm.settings import engine_arguments

PUSH_LIMIT_S = 300.0  # an engine that is paused for longer lost its learner: its health check fails


class VllmEngine:
    """One vLLM engine (its workers are child processes).

    Owner: a policy replica. `generate` may be called from many tasks at once; `load_weights` waits for none of them:
    it freezes the scheduler between two decode steps, swaps the weights and goes on, so that an answer in flight may
    hold tokens of two versions (its `weight_version` is the older one).
    """

    def __init__(self, engine: AsyncLLM, config: EngineConfig, version: int = 0) -> None:
        self._engine = engine
        self._config = config
        self._version = version
        self.broken = False
        self._parameters: dict[Sampling, Any] = {}
        self._update = asyncio.Lock()
        self._pushed_since: float | None = None
        self._max_model_len: int = engine.model_config.max_model_len
        self._vocab_size: int = engine.model_config.get_vocab_size()

    @classmethod
    def start(cls, config: EngineConfig, model: str, version: int = 0, weight_updates: bool = True) -> VllmEngine:
        """Loads the model; takes seconds to minutes. Must run inside an asyncio loop."""
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        arguments = AsyncEngineArgs(**engine_arguments(config, model, weight_updates))
        return cls(AsyncLLM.from_engine_args(arguments), config, version)

    @property
    def version(self) -> int:
        return self._version

    @property
    def llm(self) -> AsyncLLM:
        """vLLM's own object, for its OpenAI routes."""
        return self._engine

    async def generate(self, requests: Sequence[GenerateRequest]) -> list[GenerateResult | GenerateFailure]:
        """Answers in the order of the requests; one that fails does not touch the others."""
        if len(requests) == 1:
            return [await self._answer(requests[0])]
        return list(await asyncio.gather(*map(self._answer, requests)))

    async def _answer(self, request: GenerateRequest) -> GenerateResult | GenerateFailure:
        try:
            async with asyncio.timeout(request.deadline_s):
                return await self._generate_one(request)
        except TimeoutError:
            message = f"no answer within {request.deadline_s:g} s; raise the deadline, or add replicas"
            return GenerateFailure(request.request_id, "deadline_exceeded", message)
        except PolicyError as error:
            return GenerateFailure(request.request_id, error.kind, error.message)

    async def _generate_one(self, request: GenerateRequest) -> GenerateResult:
        from vllm.exceptions import VLLMClientError
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        self._check(request)
        arrival = time.perf_counter()
        first_version = self._version
        final: Any = None
        try:
            prompt = {"type": "token", "prompt_token_ids": list(request.token_ids)}
            stream = self._engine.generate(prompt, self._sampling(request.sampling), request.request_id)
            async for output in stream:
                final = output
        except (EngineDeadError, EngineGenerateError) as error:
            raise PolicyError("engine_failed", f"vLLM stopped working on the request: {error!r}") from error
        except (VLLMClientError, ValueError) as error:
            raise PolicyError("invalid_request", str(error)) from error
        answer = final.outputs[0]
        if answer.finish_reason not in ("stop", "length"):
            raise PolicyError("engine_failed", f"vLLM ended the request as {answer.finish_reason!r}")
        ids = list(answer.token_ids)
        return GenerateResult(
            request_id=request.request_id,
            token_ids=ids,
            logprobs=_chosen_logprobs(answer.logprobs, ids) if request.sampling.logprobs else [],
            weight_version=first_version,
            finish_reason=answer.finish_reason,
            weight_version_last=self._version,
            infer_ms=(time.perf_counter() - arrival) * 1e3,
        )

    def _check(self, request: GenerateRequest) -> None:
        if not request.token_ids:
            raise PolicyError("invalid_request", "the prompt is empty: send at least one token")
        total = len(request.token_ids) + request.sampling.max_tokens
        if total > self._max_model_len:
            raise PolicyError(
                "too_large",
                f"prompt of {len(request.token_ids)} tokens plus max_tokens {request.sampling.max_tokens} is over "
                f"max_model_len {self._max_model_len}: shorten the history or raise engine.max_model_len",
            )
        if min(request.token_ids) < 0 or max(request.token_ids) >= self._vocab_size:
            raise PolicyError("invalid_request", f"token ids must lie in 0..{self._vocab_size - 1}")

    def _sampling(self, sampling: Sampling) -> Any:
        if sampling.seed is not None or sampling.json_schema is not None:
            return self._build_sampling(sampling)
        parameters = self._parameters.get(sampling)
        if parameters is None:
            parameters = self._parameters[sampling] = self._build_sampling(sampling)
        return parameters

    def _build_sampling(self, sampling: Sampling) -> Any:
        from vllm.sampling_params import RequestOutputKind, SamplingParams, StructuredOutputsParams

        constraint = None
        if sampling.regex is not None or sampling.json_schema is not None:
            constraint = StructuredOutputsParams(regex=sampling.regex, json=sampling.json_schema)
        allowed = None
        if sampling.banned_token_ids:
            banned = set(sampling.banned_token_ids)
            allowed = [token for token in range(self._vocab_size) if token not in banned]
        return SamplingParams(
            temperature=sampling.temperature,
            max_tokens=sampling.max_tokens,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            min_p=sampling.min_p,
            seed=sampling.seed,
            stop_token_ids=list(sampling.stop_token_ids),
            allowed_token_ids=allowed,
            structured_outputs=constraint,
            logprobs=0 if sampling.logprobs else None,  # 0: the chosen token's own
            flat_logprobs=True,
            ignore_eos=sampling.ignore_eos,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
            skip_clone=True,
        )

    async def load_weights(self, folder: str, version: int) -> None:
        """Takes up the version that lies in `folder` (safetensors shards). Requests in flight go on afterwards.

        Raises PolicyError("stale_weights") when the version cannot be loaded; the old weights then stay in use, but
        for a failure half-way (vLLM's message says that the model holds parts of two versions): `broken` is then set
        and the replica's health check fails, so that Serve replaces it.
        """
        from vllm.distributed.weight_transfer.base import WeightTransferUpdateRequest

        async with self._update:
            if version <= self._version:
                return
            await self._pause()
            try:
                await self._engine.start_weight_update()
                await self._engine.update_weights(
                    WeightTransferUpdateRequest(update_info={"folder": folder, "version": version})
                )
                await self._engine.finish_weight_update(str(version))
                self._version = version
            except Exception as error:
                self.broken = "two versions" in str(error) or "version lacks" in str(error)
                raise PolicyError("stale_weights", f"vLLM could not load version {version}: {error!r}") from error
            finally:
                await self._engine.resume_generation()

    async def _pause(self) -> None:
        """Freezes the scheduler between two decode steps and drops the caches of the old weights."""
        await self._engine.renderer.clear_mm_cache_async()
        # pause_generation would add a sleep of 20 ms
        await self._engine.engine_core.pause_scheduler_async(mode="keep", clear_cache=True)

    async def push(self, call: str, argument: Any = None) -> None:
        """One call of a learner that pushes weights: `init`, then for each version `pause`, `start`, `update` (one or
        more), `finish` (the version), `resume`. A pull waits from `pause` to `resume`. Raises PolicyError."""
        from vllm.distributed.weight_transfer.base import WeightTransferInitRequest, WeightTransferUpdateRequest

        try:
            if call == "init":
                await self._engine.init_weight_transfer_engine(WeightTransferInitRequest(init_info=argument))
            elif call == "pause":
                await self._update.acquire()
                self._pushed_since = time.monotonic()
                await self._pause()
            elif call == "start":
                await self._engine.start_weight_update()
            elif call == "update":
                self.broken = True  # until `finish`: a push that stops half-way leaves parts of two versions
                await self._engine.update_weights(WeightTransferUpdateRequest(update_info=argument))
            elif call == "finish":
                await self._engine.finish_weight_update(str(argument))
                self._version, self.broken = int(argument), False
            elif call == "resume":
                self._pushed_since = None
                await self._engine.resume_generation()
                self._update.release()
            else:
                raise PolicyError("invalid_request", f"no weight-sync call {call!r}")
        except PolicyError:
            raise
        except Exception as error:
            raise PolicyError("stale_weights", f"weight-sync call {call!r} failed: {error!r}") from error

    async def check_health(self) -> None:
        """Raises when the engine's processes are gone, or when a failed update left mixed weights."""
        pushed_s = 0.0 if self._pushed_since is None else time.monotonic() - self._pushed_since
        if pushed_s > PUSH_LIMIT_S:
            raise RuntimeError(f"paused for a push of weights for {pushed_s:.0f} s: the learner is gone")
        if self._pushed_since is None and self.broken:
            raise RuntimeError("a weight update failed half-way: the model holds parts of two versions")
        await self._engine.check_health()

    async def close(self) -> None:
        self._engine.shutdown()


def _chosen_logprobs(logprobs: Any, token_ids: list[int]) -> list[float]:
    """The sampled tokens' own values out of vLLM's flat arrays (each position lists the sampled token first)."""
    if hasattr(logprobs, "start_indices"):
        return [float(logprobs.logprobs[start]) for start in logprobs.start_indices]
    return [float(entry[token].logprob) for entry, token in zip(logprobs, token_ids, strict=True)]
