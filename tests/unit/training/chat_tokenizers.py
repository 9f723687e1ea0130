"""Chat tokenizers of several families, made on the spot."""

from __future__ import annotations

from pathlib import Path

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = (
    "{{- bos_token }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
FAMILIES = ("tiny", "chatml", "llama3", "unigram")


def make_tokenizer(family: str, folder: Path) -> None:
    """A fast tokenizer with the special tokens and the chat template of a family, as transformers saves it."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    chatml = family != "llama3"
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    if not chatml:
        special = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    corpus = ["user system assistant\n\nYou play X. <move>5</move> the end of it\n", *special]
    if family == "unigram":  # its vocabulary holds the special texts as ordinary pieces with the best score
        pieces = [(chr(code), -9.0) for code in range(10, 127)] + [("<unk>", -30.0)]
        backend = Tokenizer(models.Unigram([*pieces, *((text, 0.0) for text in special)], len(pieces) - 1))
        backend.normalizer = normalizers.NFKC()
    else:
        backend = Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        backend.train_from_iterator(
            corpus * 4, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=special[0],
        eos_token=special[-1],
        pad_token=special[0],
        additional_special_tokens=special[1:-1],
    )
    tokenizer.chat_template = CHATML if chatml else LLAMA3
    tokenizer.save_pretrained(folder)
