"""Tiny models of many families, with random weights: what vLLM and transformers both load, and the learner trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from configs.rollouts import EnvConfig
from training.imitation import tiny

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


def of_family(family: str, folder: Path, env: EnvConfig | None = None, seed: int = 0) -> Path:
    """Writes the family's tiny model to `folder`, with a tokenizer made from an environment's texts; returns it."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    tiny.build_tokenizer(tiny.environment_texts(env or EnvConfig()), VOCABULARY, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ends = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = AutoConfig.for_model(family, vocab_size=len(tokenizer), **{**SMALL, **ends, **FAMILIES[family]})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    return folder
