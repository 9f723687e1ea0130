"""Does the learner score what the engine sampled, whatever the family? `python -m benchmarks.families [--check]`.

For each family of causal models a tiny one with random weights, in float32: vLLM samples answers, the learner scores
them, and the figure is the largest difference of a log-probability, in nats.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
from pathlib import Path

from benchmarks.common import Figure, options, report
from configs.policies import PolicyConfig
from configs.replicas import EngineConfig
from configs.training import TrainConfig
from deployments.protocol.generate import GenerateRequest, GenerateResult, Sampling
from training.certify.models import FAMILIES, of_family
from training.checks.agreement import FLOAT32, Fit
from training.cluster.child import Report, in_own_process
from training.types import Sample

PROMPTS, PROMPT_TOKENS, ANSWER_TOKENS = 16, 24, 24
TEMPERATURE = 0.7


async def sampled(folder: Path) -> list[Sample]:
    """Prompts of random tokens and what the engine answered."""
    from deployments.engines.vllm.engine import VllmEngine

    engine = EngineConfig(dtype="float32", max_model_len=128, max_num_seqs=PROMPTS, device="cpu", cpu_kv_cache_gib=0.25)
    vllm = VllmEngine(PolicyConfig(model=str(folder), engine=engine))
    await vllm.load()
    rng = random.Random(0)
    sampling = Sampling(temperature=TEMPERATURE, max_tokens=ANSWER_TOKENS, ignore_eos=True)
    prompts = [[rng.randrange(20, 280) for _ in range(PROMPT_TOKENS)] for _ in range(PROMPTS)]
    answers = await vllm.generate([GenerateRequest(f"r{i}", prompt, sampling) for i, prompt in enumerate(prompts)])
    await vllm.close()
    return [_sample(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]


def _sample(prompt: list[int], answer: object) -> Sample:
    assert isinstance(answer, GenerateResult), answer
    before = len(prompt)
    mask = (*[0] * before, *[1] * len(answer.token_ids))
    return Sample((*prompt, *answer.token_ids), mask, (*[0.0] * before, *answer.logprobs), 0.0)


def difference(family: str, folder: Path, _: Report) -> float:
    from training.learner.learner import Learner
    from training.learner.settings import LearnerSettings

    samples = asyncio.run(sampled(of_family(family, folder)))
    config = TrainConfig.parse({"sampling": {"temperature": TEMPERATURE}})
    scores = Learner(LearnerSettings.of(config, folder)).score(samples)
    sampler = [[p for p, chosen in zip(s.sampler_logp_T, s.mask_T, strict=True) if chosen] for s in samples]
    return Fit.of(sampler, scores).largest


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    chosen = parser.parse_args()
    figures = []
    for family in chosen.families:
        with tempfile.TemporaryDirectory() as folder:
            nats = in_own_process(difference, family, Path(folder))
        print(f"{family}: {nats:.2g} nats", flush=True)
        figures.append(Figure(family, nats * 1e6, "millionths of a nat", FLOAT32.largest * 1e6, lower_is_better=True))
    report("families", figures, chosen)


if __name__ == "__main__":
    main()
