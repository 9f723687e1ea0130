"""A prompt of token ids that shows images, as vLLM takes it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from deployments.errors import PolicyError

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM


async def prompt_with(llm: AsyncLLM, token_ids: Sequence[int], images: Sequence[NDArray[np.uint8]]) -> dict[str, Any]:
    """The prompt for `llm.generate`. vLLM's processor wants one token for each image, and puts in as many as it takes
    itself: these must be the ones that were sent, else the answer would be to another prompt than the caller trains on.

    vLLM does this in threads, and keeps processed images by the hash of their content. Raises vLLM's errors, ValueError
    and PolicyError for what the model cannot take.
    """
    image_id = getattr(llm.model_config.hf_config, "image_token_id", None)
    if image_id is None or not llm.model_config.is_multimodal_model:
        raise PolicyError("invalid_request", "the model reads no images: send token ids alone")
    from PIL import Image

    single = collapsed(token_ids, image_id)
    if (in_text := single.count(image_id)) != len(images):
        raise PolicyError("invalid_request", f"the prompt has tokens of {in_text} images, but {len(images)} were sent")
    prompt = {
        "prompt_token_ids": single,
        "multi_modal_data": {"image": [Image.fromarray(image) for image in images]},
    }
    (rendered,) = await llm.renderer.render_cmpl_async([prompt])
    if list(rendered["prompt_token_ids"]) != list(token_ids):
        raise PolicyError(
            "invalid_request",
            f"the prompt has {sum(each == image_id for each in token_ids)} tokens for {len(images)} images, and the "
            f"model's processor makes {sum(each == image_id for each in rendered['prompt_token_ids'])} of them",
        )
    return rendered


def collapsed(token_ids: Sequence[int], image_id: int) -> list[int]:
    """One token for each image: those of two images never touch, since templates put others around each."""
    runs = [(each, sum(1 for _ in run)) for each, run in groupby(token_ids)]
    return [each for each, length in runs for _ in range(1 if each == image_id else length)]
