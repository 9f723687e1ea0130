"""Faults of the sampler: put into the replica's process, where vLLM's engine is driven."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

from training.certify.mutants import Mutant
from training.certify.swapping import swapped


def _sampled_otherwise(**changes: Any) -> AbstractContextManager[None]:
    from deployments.engines.vllm.engine import VllmEngine

    return swapped(
        VllmEngine,
        "_sampling",
        lambda original: lambda self, sampling, in_parts: original(self, replace(sampling, **changes), in_parts),
    )


def temperature_ignored() -> AbstractContextManager[None]:
    return _sampled_otherwise(temperature=1.0)


def top_p_renormalises() -> AbstractContextManager[None]:
    return _sampled_otherwise(top_p=0.7)


def off_by_one() -> AbstractContextManager[None]:
    from deployments.engines.vllm import engine

    def shifted(original: Any) -> Any:
        def logprobs(values: Any, token_ids: list[int]) -> list[float]:
            right: list[float] = original(values, token_ids)
            return right[-1:] + right[:-1]

        return logprobs

    return swapped(engine, "_chosen_logprobs", shifted)


def likelier_of_two() -> AbstractContextManager[None]:
    """Draws twice and gives the likelier answer, with its own true log-probabilities."""
    from deployments.engines.vllm.engine import VllmEngine

    def drawn_twice(original: Any) -> Any:
        async def generate(self: Any, request: Any, emit: Any) -> Any:
            seed = request.sampling.seed
            other = replace(request.sampling, seed=None if seed is None else seed ^ 1)
            answers = await asyncio.gather(
                original(self, request, emit),
                original(self, replace(request, request_id=f"{request.request_id}-again", sampling=other), emit),
            )
            return replace(max(answers, key=lambda answer: sum(answer.logprobs)), request_id=request.request_id)

        return generate

    return swapped(VllmEngine, "_generate_one", drawn_twice)


def update_missed() -> AbstractContextManager[None]:
    """Every update but the first is told as done and is not."""
    from deployments.engines.vllm.weights import EngineWeights

    def missing(original: Any) -> Any:
        begun = [False]

        async def pull(self: Any, folder: Any, version: int) -> None:
            if begun[0]:
                self.version = max(self.version, version)
                return
            begun[0] = True
            await original(self, folder, version)

        return pull

    return swapped(EngineWeights, "pull", missing)


@contextmanager
def cache_kept() -> Iterator[None]:
    from deployments.engines.vllm.weights import VllmWeightCalls

    async def pause(self: Any) -> None:
        await self._llm.engine_core.pause_scheduler_async(mode="keep", clear_cache=False)

    with swapped(VllmWeightCalls, "pause", lambda original: pause):
        yield


SAMPLER = (
    Mutant(
        "temperature ignored",
        "the replica samples at temperature 1, whatever is asked for",
        "a curve that is worse than it could be; ratios that start off 1 and are clipped",
        temperature_ignored,
        in_replica=True,
        sources=("huggingface/trl#3029", "OpenRLHF/OpenRLHF#857"),
        caught_by=("agreement",),
    ),
    Mutant(
        "top_p renormalises",
        "the replica leaves the tail out (top_p 0.7) and reports probabilities of what is left",
        "ratios below 1 throughout; the policy is pulled back to what it cannot sample",
        top_p_renormalises,
        in_replica=True,
        sources=("NVIDIA-NeMo/RL#69", "modelscope/ms-swift#8442"),
        caught_by=("agreement",),
    ),
    Mutant(
        "log-probabilities off by one",
        "each token has the log-probability of its neighbour",
        "noise in the ratios that the clip hides",
        off_by_one,
        in_replica=True,
        sources=("modelscope/ms-swift#8427", "PrimeIntellect-ai/prime-rl#1525"),
        caught_by=("agreement",),
    ),
    Mutant(
        "another distribution than reported",
        "of two draws the likelier one is given, with its true log-probability",
        "nothing at all: sampler and learner agree on every token; the entropy collapses",
        likelier_of_two,
        in_replica=True,
        sources=("huggingface/trl#3867", "verl-project/verl#2953"),
        caught_by=(
            "sibling answers",
            "surprise",
        ),
    ),
    Mutant(
        "update missed",
        "a replica says that it holds a version and samples with the weights before it",
        "off-policy training that the lag does not show",
        update_missed,
        in_replica=True,
        sources=("huggingface/trl#5312", "huggingface/trl#2856"),
        caught_by=("agreement",),
    ),
    Mutant(
        "stale key-value cache",
        "the prefix cache keeps keys and values of the old weights after an update",
        "answers from half of two policies, more of them the longer the shared prompt is",
        cache_kept,
        in_replica=True,
        sources=("NVIDIA-NeMo/RL#4018", "vllm-project/vllm#9744"),
        caught_by=("agreement",),
    ),
)
