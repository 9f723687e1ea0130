"""Models that are made on the spot."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.base import ConfigError
from deployments.engines.vllm import tiny
from deployments.storage.models import folder_problem


def test_a_model_that_is_not_tiny_keeps_its_name(tmp_path: Path) -> None:
    assert tiny.made("Qwen/Qwen2-VL-2B-Instruct", tmp_path) == "Qwen/Qwen2-VL-2B-Instruct"


def test_an_unknown_tiny_model_is_answered_by_those_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no tiny model 'txt': tiny:text, tiny:vision"):
        tiny.made("tiny:txt", tmp_path)


def test_a_tiny_text_model_is_made_once_and_takes_any_text(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = Path(tiny.made("tiny:text", tmp_path))
    written = (folder / "model.safetensors").stat().st_mtime_ns
    assert folder_problem(folder) is None
    assert tiny.made("tiny:text", tmp_path) == str(folder)
    assert (folder / "model.safetensors").stat().st_mtime_ns == written

    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = "Grüße, 世界"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    assert prompt == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert len(tokenizer.encode(prompt)) == 3 + len("user\nHi\nassistant\n")  # each special token is one
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.config.vocab_size == len(tokenizer)


def test_half_a_model_is_made_again(tmp_path: Path) -> None:
    folder = Path(tiny.made("tiny:text", tmp_path))
    (folder / "model.safetensors").unlink()
    tiny.made("tiny:text", tmp_path)
    assert folder_problem(folder) is None


def test_a_tiny_vision_model_takes_images_through_its_own_processor(tmp_path: Path) -> None:
    pytest.importorskip("torchvision", exc_type=ImportError)
    import torch
    from PIL import Image
    from transformers import AutoProcessor, Qwen2VLForConditionalGeneration

    folder = Path(tiny.made("tiny:vision", tmp_path))
    processor = AutoProcessor.from_pretrained(folder)
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What do you see?"}]}]
    prompt = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert "<|vision_start|><|image_pad|><|vision_end|>What" in prompt

    inputs = processor(text=[prompt], images=[Image.new("RGB", (640, 480), "red")], return_tensors="pt")
    model = Qwen2VLForConditionalGeneration.from_pretrained(folder)
    assert int((inputs["input_ids"] == model.config.image_token_id).sum()) == 12  # 112 x 84 pixels of 28 x 28 a token
    with torch.no_grad():
        logits = model(**inputs).logits
    assert logits.shape[-1] == len(processor.tokenizer)
    assert bool(torch.isfinite(logits).all())
