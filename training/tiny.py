"""A tiny Qwen2 with random weights and a tokenizer of its own, built on the spot from an environment's texts."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path

import envs.registry
from configs.training import EnvConfig, TinyModel
from envs.history import make_history

PAD, USER, ASSISTANT, SYSTEM, END = "<|pad|>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>"
SPECIAL_TOKENS = [PAD, USER, ASSISTANT, SYSTEM, END]

# Two tokens of overhead a turn; the third, END, is the policy's own last token.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ '<|end|>' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)

# Tags, words with their space, single letters, digits and punctuation are never merged across each other: what an
# environment varies (a cell, a coordinate) stays one token wherever it stands.
PIECES = r"</?[A-Za-z_]+>| ?[A-Za-z]{2,}|[A-Za-z]|\d|\n|[^\S\n]|[^\sA-Za-z\d]"


def environment_texts(env: EnvConfig, episodes: int = 64, seed: int = 0) -> Iterable[str]:
    """What the policy will read and write: prompts and expert answers of scripted episodes."""
    environment = envs.registry.make(env.name, **env.kwargs)
    rng = random.Random(seed)
    history = make_history(env.history, environment.spec)
    system = environment.spec.system_prompt if env.system_prompt is None else env.system_prompt
    for episode in range(episodes):
        observation = environment.reset(seed + episode)
        yield from (str(message["content"]) for message in history.start(system, observation))
        for _ in range(env.max_turns):
            action = environment.expert_action(rng, noise=0.5)
            result = environment.step(action)
            yield action
            yield result.observation.text
            if result.terminated or result.truncated:
                break
    environment.close()


def build_tokenizer(texts: Iterable[str], vocab_size: int, folder: Path) -> None:
    """Trains a byte-level BPE (any text can be encoded) and saves it in Hugging Face format with the chat template."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=END, additional_special_tokens=[USER, ASSISTANT, SYSTEM]
    )
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(folder)


def build_model(tiny: TinyModel, vocab_size: int, eos_token_id: int, pad_token_id: int, seed: int, folder: Path) -> None:
    """Random weights, saved in Hugging Face format. Embeddings are untied: vLLM's CPU build packs a tied lm_head once
    and would go on sampling from the old one after a weight update."""
    import torch
    from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=vocab_size,
        hidden_size=tiny.hidden_size,
        num_hidden_layers=tiny.layers,
        num_attention_heads=tiny.heads,
        num_key_value_heads=tiny.kv_heads,
        intermediate_size=tiny.intermediate_size,
        initializer_range=tiny.initializer_range,
        max_position_embeddings=tiny.max_positions,
        tie_word_embeddings=False,
        eos_token_id=eos_token_id,
        pad_token_id=pad_token_id,
        bos_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2ForCausalLM(config)
    # Without a file of its own vLLM would take sampling defaults from elsewhere.
    model.generation_config = GenerationConfig(eos_token_id=eos_token_id, pad_token_id=pad_token_id)
    model.to(torch.float32).save_pretrained(folder)


def build(tiny: TinyModel, env: EnvConfig, seed: int, folder: str | Path) -> Path:
    """Writes model and tokenizer to `folder` (created) and returns it. Same seed, same bytes."""
    from transformers import AutoTokenizer

    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    build_tokenizer(environment_texts(env), tiny.vocab_size, path)
    tokenizer = AutoTokenizer.from_pretrained(path)
    build_model(tiny, len(tokenizer), tokenizer.eos_token_id, tokenizer.pad_token_id, seed, path)
    return path
