"""Prompts of token ids that show images."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from deployments.engines.vllm.images import collapsed, prompt_with
from deployments.errors import PolicyError

IMAGE = 7


class Renderer:
    """Puts in `made` tokens for each image, as vLLM's renderer does."""

    def __init__(self, made: int) -> None:
        self._made = made

    async def render_cmpl_async(self, prompts: list[dict[str, Any]]) -> list[dict[str, Any]]:
        (prompt,) = prompts
        ids = [id_ for each in prompt["prompt_token_ids"] for id_ in [each] * (self._made if each == IMAGE else 1)]
        return [{"prompt_token_ids": ids, "images": prompt["multi_modal_data"]["image"]}]


def engine(made: int = 2, **config: Any) -> Any:
    model = SimpleNamespace(hf_config=SimpleNamespace(**config), is_multimodal_model=bool(config))
    return SimpleNamespace(model_config=model, renderer=Renderer(made))


PICTURE = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)


def test_the_tokens_of_an_image_become_the_one_that_the_processor_replaces() -> None:
    assert collapsed([1, 7, 7, 2, 7, 3, 3], IMAGE) == [1, 7, 2, 7, 3, 3]


async def test_a_prompt_reaches_the_model_as_it_was_sent_with_its_pixels() -> None:
    prompt = await prompt_with(engine(image_token_id=IMAGE), [1, 7, 7, 2], [PICTURE])
    assert prompt["prompt_token_ids"] == [1, 7, 7, 2]
    assert (np.asarray(prompt["images"][0]) == PICTURE).all()


async def test_a_prompt_that_the_model_would_see_otherwise_is_refused() -> None:
    with pytest.raises(PolicyError, match="has 2 tokens for 1 images, and the model's processor makes 4 of them"):
        await prompt_with(engine(made=4, image_token_id=IMAGE), [1, 7, 7, 2], [PICTURE])


async def test_images_without_tokens_are_refused() -> None:
    with pytest.raises(PolicyError, match="has tokens of 1 images, but 2 were sent"):
        await prompt_with(engine(image_token_id=IMAGE), [1, 7, 7, 2], [PICTURE, PICTURE])


async def test_a_model_that_reads_no_images_says_so() -> None:
    with pytest.raises(PolicyError, match="the model reads no images"):
        await prompt_with(engine(), [1, 2], [PICTURE])
