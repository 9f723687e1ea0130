"""Models of known shapes with random weights, and a tokenizer for them: nothing is downloaded."""

from __future__ import annotations

import itertools
import string
from dataclasses import dataclass
from pathlib import Path

from training.cluster.child import Report
from training.imitation.tiny import ASSISTANT, CHAT_TEMPLATE, END, PAD, SYSTEM, USER


@dataclass(frozen=True)
class Shape:
    """A decoder with grouped-query attention, a gated feed-forward and tied embeddings."""

    name: str
    model_type: str  # transformers' name
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int

    def step_flops(self, tokens: int, chosen: int, pairs: int) -> float:
        """Forward and backward of `tokens` tokens, the head for the `chosen` ones only: 2 operations for each weight
        that a token meets, and 4 * hidden for each of the `pairs` of a token and one that it attends to; the
        backward pass is twice the forward pass."""
        keys = 2 * self.hidden * self.hidden * self.kv_heads // self.heads
        layer = 2 * self.hidden * self.hidden + keys + 3 * self.hidden * self.intermediate
        body = 2 * self.layers * layer * tokens + 4 * self.layers * self.hidden * pairs
        return 3.0 * (body + 2 * self.hidden * self.vocabulary * chosen)


SMOLLM2_135M = Shape("135M", "llama", 576, 1536, 30, 9, 3, 49_152)
QWEN25_0_5B = Shape("0.5B", "qwen2", 896, 4864, 24, 14, 2, 151_936)
QWEN25_1_5B = Shape("1.5B", "qwen2", 1536, 8960, 28, 12, 2, 151_936)


def save(shape: Shape, folder: Path, _: Report | None = None) -> Path:
    """Writes model and tokenizer in Hugging Face format and returns the folder; for `in_own_process`, too."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    end, pad = _save_tokenizer(shape.vocabulary, folder)
    ends = {"eos_token_id": end, "pad_token_id": pad}
    config = AutoConfig.for_model(
        shape.model_type,
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        bos_token_id=None,
        **ends,
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.generation_config = GenerationConfig(**ends)  # else engines take sampling defaults from elsewhere
    model.save_pretrained(folder)
    return folder


def _save_tokenizer(size: int, folder: Path) -> tuple[int, int]:
    """As many tokens as the model: bytes, then made-up words, so that each id has a text. Returns the ids of the end of
    a turn and of padding."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import Qwen2Tokenizer

    special = [PAD, END, USER, ASSISTANT, SYSTEM]
    words = ("".join(letters) for letters in itertools.product(string.ascii_lowercase + string.digits, repeat=4))
    pieces = itertools.islice(itertools.chain(sorted(ByteLevel.alphabet()), words), size - len(special))
    tokenizer = Qwen2Tokenizer(
        vocab={piece: index for index, piece in enumerate(pieces)},
        merges=[],
        unk_token=None,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[USER, ASSISTANT, SYSTEM],
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)
    return tokenizer.eos_token_id, tokenizer.pad_token_id
