"""Does the learner score what the engine sampled, whatever the family? `python -m benchmarks.families [--check]`.

For each family of causal models a tiny one with random weights, in float32: vLLM samples answers, the learner scores
them, and the figure is the largest difference of a log-probability, in nats.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common import Figure, options, report
from configs.policies import EngineConfig, PolicyConfig
from configs.training import EnvConfig, TrainConfig
from deployments.protocol.generate import GenerateRequest, GenerateResult, Sampling
from training.checks.agreement import FLOAT32, Fit
from training.cluster.child import Report, in_own_process
from training.imitation import tiny
from training.types import Sample

SMALL = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,  # larger than usual, so that the logits are far from 0
}
# By transformers' model_type, with what is the family's own and no default.
FAMILIES: dict[str, dict[str, Any]] = {
    "qwen2": {},
    "qwen3": {"head_dim": 32},
    "llama": {},
    "mistral": {},
    "gemma2": {"head_dim": 32, "query_pre_attn_scalar": 32, "final_logit_softcapping": 5.0},
    "granite": {"logits_scaling": 4.0, "attention_multiplier": 0.1, "embedding_multiplier": 3.0},
    "phi": {"num_key_value_heads": 4, "intermediate_size": 512},  # what vLLM takes for granted
    "phi3": {},
    "olmo": {},
    "olmo2": {},
    "cohere": {"logit_scale": 0.25},
}
VOCABULARY = 320
PROMPTS, PROMPT_TOKENS, ANSWER_TOKENS = 16, 24, 24
TEMPERATURE = 0.7


def made(family: str, folder: Path) -> Path:
    """The family's tiny model with a tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    tiny.build_tokenizer(tiny.environment_texts(EnvConfig()), VOCABULARY, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ends = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, vocab_size=len(tokenizer), **{**SMALL, **ends, **FAMILIES[family]})
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    return folder


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
    from training.learner.learner import Learner, LearnerSettings

    samples = asyncio.run(sampled(made(family, folder)))
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
