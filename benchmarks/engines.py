"""The bare engines that the serving benchmarks compare with, and the requests that all sides get."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.models import TinyModel
from configs.replicas import EngineConfig
from configs.rollouts import EnvConfig
from deployments.engines.vllm.settings import engine_arguments, process_environment
from training.imitation import tiny

Prompts = list[list[int]]


@dataclass(frozen=True)
class Load:
    """Requests of one kind: tokens of the prompt and of the answer, and how many are out at once."""

    name: str
    prompt_tokens: int
    answer_tokens: int
    concurrency: int
    requests: int

    def prompts(self, round_: int) -> Prompts:
        """Random tokens, others in every round, so that no prefix cache answers for the engine."""
        rng = random.Random(f"{self.name}/{round_}")
        return [[rng.randrange(20, 280) for _ in range(self.prompt_tokens)] for _ in range(self.requests)]


def tiny_model(folder: Path, max_positions: int = 1024) -> Path:
    return tiny.build(TinyModel(max_positions=max_positions), EnvConfig(), 0, folder)


def engine_config(load: Load) -> EngineConfig:
    """Also sets this process's environment like a replica's: vLLM reads part of its settings there."""
    config = EngineConfig(
        dtype="float32", max_model_len=256, max_num_seqs=load.concurrency, max_num_batched_tokens=8192, device="cpu"
    )
    os.environ.update(process_environment(config), OMP_NUM_THREADS="1")
    return config


def sampling(load: Load) -> Any:
    """What the rollout path asks for: sampled at temperature 1, with the log-probability of each token."""
    from vllm.sampling_params import RequestOutputKind, SamplingParams

    return SamplingParams(
        temperature=1.0,
        max_tokens=load.answer_tokens,
        ignore_eos=True,
        logprobs=0,
        flat_logprobs=True,
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


class Offline:
    """vLLM's offline engine: all requests at once."""

    def __init__(self, load: Load, model: Path) -> None:
        from vllm import LLM

        self._load = load
        self._llm = LLM(**engine_arguments(engine_config(load), str(model), weight_updates=False))

    async def rate(self, prompts: Prompts) -> float:
        began = time.perf_counter()
        inputs: Any = [{"prompt_token_ids": prompt} for prompt in prompts]
        answers = self._llm.generate(inputs, sampling(self._load), use_tqdm=False)
        seconds = time.perf_counter() - began
        assert all(len(answer.outputs[0].token_ids) == self._load.answer_tokens for answer in answers)
        return len(prompts) / seconds

    def close(self) -> None:
        self._llm.llm_engine.engine_core.shutdown()


class InProcess:
    """vLLM's AsyncLLM in this process, at the load's concurrency."""

    def __init__(self, load: Load, model: Path) -> None:
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        self._load = load
        arguments = engine_arguments(engine_config(load), str(model), weight_updates=False)
        self._engine = AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments))
        self._sent = 0

    async def rate(self, prompts: Prompts) -> float:
        async def one(prompt: list[int]) -> None:
            self._sent += 1
            inputs: Any = {"type": "token", "prompt_token_ids": prompt}
            async for output in self._engine.generate(inputs, sampling(self._load), f"r{self._sent}"):
                assert len(output.outputs[0].token_ids) == self._load.answer_tokens

        return await at_concurrency(one, prompts, self._load.concurrency)

    def close(self) -> None:
        self._engine.shutdown()


async def at_concurrency(
    one: Callable[[list[int]], Awaitable[None]], prompts: Sequence[list[int]], concurrency: int
) -> float:
    """Requests/s with `concurrency` of them out at any time."""
    todo = iter(prompts)

    async def client() -> None:
        for prompt in todo:
            await one(prompt)

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(concurrency)))
    return len(prompts) / (time.perf_counter() - began)
