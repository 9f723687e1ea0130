"""A tiny Qwen2 (or Qwen2-VL) with random weights and a tokenizer of its own, built from an environment's texts."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from configs.models import TinyModel, TinyVision
from configs.rollouts import EnvConfig
from deployments.storage.atomic import written_whole
from training.environments.processes import opened
from training.rendering.conversation import history_and_system
from training.rendering.messages import content_of

PAD, USER, ASSISTANT, SYSTEM, END = "<|pad|>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>"


SPECIAL_TOKENS = [PAD, USER, ASSISTANT, SYSTEM, END]
IMAGE_START, IMAGE_END, IMAGE, VIDEO = "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"
MERGE = 2  # patches each way that become one token; vLLM takes no other number for Qwen2-VL
VISION_TOKENS = [IMAGE_START, IMAGE_END, IMAGE, VIDEO]  # as Qwen2-VL calls them


# Two tokens of overhead a turn; the third, END, is the policy's own last token.
CHAT_TEMPLATE = (
    "{% if tools %}{{ '<|system|>' }}{% for tool in tools %}{{ tool['function'] | tojson }}{% endfor %}{% endif %}"
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}"
    "{% if message['role'] == 'assistant' %}{{ '<|end|>' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


# What an environment varies as a whole (a tag, a coordinate, a size, a digit with its space) is one token wherever it
# stands: a board's cells keep their positions whatever is in them, which a small model learns much faster. The rest is
# cut by Qwen2's own rule (words with their space, single digits): a loader that sees a Qwen2 model rebuilds that rule
# whatever the file says, but keeps added tokens.
WHOLE_PIECES = re.compile(r"</?[A-Za-z_]+>|(?: ?[A-Za-z]+)? ?\(\d+, \d+\)| ?\d+x\d+| \d(?!\w)")


MOST_WHOLE_PIECES = 192


def environment_texts(env: EnvConfig, episodes: int = 64, seed: int = 0) -> Iterable[str]:
    """What the policy will read and write: prompts and expert answers of scripted episodes."""
    environment = opened(env, env.scripted)
    rng = random.Random(seed)
    history, system = history_and_system(env, environment.spec)
    for episode in range(episodes):
        observation = environment.reset(seed + episode)
        yield from (content_of(message)[0] for message in history.start(system, observation))
        for _ in range(env.max_turns):
            action = environment.expert_action(rng, noise=0.5, illegal_noise=0.1)
            result = environment.step(action)
            yield action
            yield result.observation.text
            if result.terminated or result.truncated:
                break
    environment.close()


def build_tokenizer(texts: Iterable[str], vocab_size: int, folder: Path, vision: bool = False) -> None:
    """Trains a byte-level BPE (any text can be encoded) and saves it in Hugging Face format with the chat template.
    `vision`: with the tokens that stand for images."""
    from tokenizers import AddedToken, Tokenizer, models, trainers
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import Qwen2Tokenizer

    corpus = list(texts)
    pieces = sorted({piece for text in corpus for piece in WHOLE_PIECES.findall(text)})[:MOST_WHOLE_PIECES]
    blank = Qwen2Tokenizer(vocab={}, merges=[])
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = blank.backend_tokenizer.pre_tokenizer
    more = VISION_TOKENS if vision else []
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(pieces) - len(SPECIAL_TOKENS) - len(more),
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    learner.train_from_iterator((WHOLE_PIECES.sub("\n", text) for text in corpus), trainer)
    model = json.loads(learner.to_str())["model"]
    tokenizer = Qwen2Tokenizer(
        vocab=model["vocab"],
        merges=[tuple(pair) for pair in model["merges"]],
        unk_token=None,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[USER, ASSISTANT, SYSTEM, *more],
    )
    tokenizer.add_tokens([AddedToken(piece, normalized=False, special=False) for piece in pieces])
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)


def build_model(tiny: TinyModel, vocab_size: int, eos_id: int, pad_id: int, seed: int, folder: Path) -> None:
    """Random weights, saved in Hugging Face format, embeddings untied."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(**text_settings(tiny, vocab_size, eos_id, pad_id), tie_word_embeddings=False)
    save_random(Qwen2ForCausalLM, config, eos_id, pad_id, seed, folder)


def text_settings(tiny: TinyModel, vocab_size: int, eos_id: int, pad_id: int) -> dict[str, Any]:
    """The language model's part of a configuration."""
    return {
        "vocab_size": vocab_size,
        "hidden_size": tiny.hidden_size,
        "num_hidden_layers": tiny.layers,
        "num_attention_heads": tiny.heads,
        "num_key_value_heads": tiny.kv_heads,
        "intermediate_size": tiny.intermediate_size,
        "initializer_range": tiny.initializer_range,
        "max_position_embeddings": tiny.max_positions,
        "eos_token_id": eos_id,
        "pad_token_id": pad_id,
        "bos_token_id": None,
    }


def save_random(model_class: Any, config: Any, eos_id: int, pad_id: int, seed: int, folder: Path) -> None:
    """Random weights of a seed."""
    import torch
    from transformers import GenerationConfig

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = model_class(config)
    # Without a file of its own vLLM would take sampling defaults from elsewhere.
    model.generation_config = GenerationConfig(eos_token_id=eos_id, pad_token_id=pad_id)
    model.to(torch.float32).save_pretrained(folder)


def build_vision_model(tiny: TinyModel, vision: TinyVision, tokenizer: Any, seed: int, folder: Path) -> None:
    """A Qwen2-VL with its image processor, saved in Hugging Face format."""
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration
    from transformers.models.qwen2_vl import Qwen2VLImageProcessor, Qwen2VLProcessor, Qwen2VLVideoProcessor

    eos_id, pad_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    seen = {
        "patch_size": vision.patch,
        "merge_size": MERGE,
        "min_pixels": (vision.patch * MERGE) ** 2,
        "max_pixels": vision.max_pixels,
    }
    processor = Qwen2VLProcessor(
        Qwen2VLImageProcessor(**seen), tokenizer, Qwen2VLVideoProcessor(**seen), chat_template=CHAT_TEMPLATE
    )
    processor.save_pretrained(folder)
    half = tiny.hidden_size // tiny.heads // 2  # pairs of a head's values that turn: by time, height and width
    of_image = 3 * half // 8
    rope = {"rope_type": "default", "mrope_section": [half - 2 * of_image, of_image, of_image], "rope_theta": 1e6}
    start, end, image, video = tokenizer.convert_tokens_to_ids(VISION_TOKENS)
    config = Qwen2VLConfig(
        text_config=text_settings(tiny, len(tokenizer), eos_id, pad_id) | {"rope_parameters": rope},
        vision_config={
            "depth": vision.depth,
            "embed_dim": vision.embed_dim,
            "num_heads": vision.heads,
            "mlp_ratio": 2,
            "hidden_size": tiny.hidden_size,
            "patch_size": vision.patch,
            "spatial_merge_size": MERGE,
            "initializer_range": tiny.initializer_range,
        },
        image_token_id=image,
        video_token_id=video,
        vision_start_token_id=start,
        vision_end_token_id=end,
        tie_word_embeddings=False,
    )
    save_random(Qwen2VLForConditionalGeneration, config, eos_id, pad_id, seed, folder)


def build(tiny: TinyModel, env: EnvConfig, seed: int, folder: str | Path) -> Path:
    """Writes model and tokenizer to `folder` (created) and returns it. Same seed, same bytes."""
    from transformers import AutoTokenizer

    path = Path(folder)
    with written_whole(path) as staged:
        build_tokenizer(environment_texts(env), tiny.vocab_size, staged, vision=tiny.vision is not None)
        tokenizer = AutoTokenizer.from_pretrained(staged)
        if tiny.vision is None:
            build_model(tiny, len(tokenizer), tokenizer.eos_token_id, tokenizer.pad_token_id, seed, staged)
        else:
            build_vision_model(tiny, tiny.vision, tokenizer, seed, staged)
    return path
