"""Tiny models with random weights, made on the spot: they answer nonsense, at once, without a download.

`tiny:text` is a Qwen2, `tiny:vision` a Qwen2-VL: the real architectures, with a tokenizer of one token per byte.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from configs.base import ConfigError
from deployments.storage.atomic import written_whole
from deployments.storage.models import folder_problem

PREFIX = "tiny:"
PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
VISION_START, VISION_END, IMAGE, VIDEO = "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"
SPECIAL_TOKENS = [PAD, START, END, VISION_START, VISION_END, IMAGE, VIDEO]

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif 'text' in part %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

HIDDEN, LAYERS, HEADS, KV_HEADS, POSITIONS = 128, 2, 4, 2, 16384  # heads of 32: the narrowest that vLLM has on a CPU
TEXT = {
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "intermediate_size": 2 * HIDDEN,
    "max_position_embeddings": POSITIONS,
    "initializer_range": 0.06,
    "tie_word_embeddings": False,  # vLLM's CPU build keeps a stale packed copy of a tied output layer
}
# An image becomes (pixels / 28 / 28) tokens: 4 to 16 of them.
MIN_PIXELS, MAX_PIXELS = 56 * 56, 112 * 112


def made(model: str, storage: Path) -> str:
    """The folder of the model that `model` names: `tiny:NAME` is written to `storage`/tiny-NAME unless it is there;
    any other name is given back. Raises ConfigError for an unknown NAME."""
    if not model.startswith(PREFIX):
        return model
    name = model.removeprefix(PREFIX)
    if name not in BUILDERS:
        raise ConfigError(f"there is no tiny model {name!r}: {', '.join(PREFIX + known for known in BUILDERS)}")
    folder = storage.expanduser().resolve() / f"tiny-{name}"
    if not folder.is_dir() or folder_problem(folder) is not None:
        with written_whole(folder) as staged:
            BUILDERS[name](staged)
    return str(folder)


def build_text(folder: Path) -> None:
    """A Qwen2 of 0.4 million parameters."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    tokenizer = _tokenizer()
    tokenizer.save_pretrained(folder)
    config = Qwen2Config(vocab_size=len(tokenizer), **TEXT, **_ends(tokenizer))
    _save(Qwen2ForCausalLM, config, tokenizer, folder)


def build_vision(folder: Path) -> None:
    """A Qwen2-VL of 0.5 million parameters, with its processor."""
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration
    from transformers.models.qwen2_vl import Qwen2VLImageProcessor, Qwen2VLProcessor, Qwen2VLVideoProcessor

    tokenizer = _tokenizer()
    processor = Qwen2VLProcessor(
        Qwen2VLImageProcessor(min_pixels=MIN_PIXELS, max_pixels=MAX_PIXELS),
        tokenizer,
        Qwen2VLVideoProcessor(min_pixels=MIN_PIXELS, max_pixels=MAX_PIXELS),
        chat_template=CHAT_TEMPLATE,
    )
    processor.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    vision = {"depth": 2, "embed_dim": 64, "num_heads": 2, "mlp_ratio": 2, "hidden_size": HIDDEN}
    # Of a head's 32 values, 16 pairs turn: by time, height and width.
    rope = {"rope_type": "default", "mrope_section": [4, 6, 6], "rope_theta": 1e6}
    text = {"vocab_size": len(tokenizer), **TEXT, **_ends(tokenizer), "rope_parameters": rope}
    config = Qwen2VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=tokenizer.convert_tokens_to_ids(IMAGE),
        video_token_id=tokenizer.convert_tokens_to_ids(VIDEO),
        vision_start_token_id=tokenizer.convert_tokens_to_ids(VISION_START),
        vision_end_token_id=tokenizer.convert_tokens_to_ids(VISION_END),
        tie_word_embeddings=False,
    )
    _save(Qwen2VLForConditionalGeneration, config, tokenizer, folder)


BUILDERS: dict[str, Callable[[Path], None]] = {"text": build_text, "vision": build_vision}


def _tokenizer() -> Any:
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import Qwen2Tokenizer

    tokenizer = Qwen2Tokenizer(
        vocab={symbol: token for token, symbol in enumerate(sorted(ByteLevel.alphabet()))},
        merges=[],
        unk_token=None,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=SPECIAL_TOKENS,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _ends(tokenizer: Any) -> dict[str, Any]:
    return {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}


def _save(model_class: Any, config: Any, tokenizer: Any, folder: Path) -> None:
    """Random weights, the same at every call."""
    import torch
    from transformers import GenerationConfig

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = model_class(config)
    model.generation_config = GenerationConfig(**_ends(tokenizer))
    model.to(torch.float32).save_pretrained(folder)
