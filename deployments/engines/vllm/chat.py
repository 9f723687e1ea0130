"""A conversation with images, answered by vLLM without its HTTP layer: frames reach the processor as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from deployments.errors import PolicyError
from deployments.protocol.act import ChatRequest, ChatTurn

if TYPE_CHECKING:
    from vllm.sampling_params import SamplingParams
    from vllm.v1.engine.async_llm import AsyncLLM


async def rendered(llm: AsyncLLM, turns: Sequence[ChatTurn]) -> dict[str, Any]:
    """The prompt for `llm.generate`: chat template applied, tokens, images through the model's processor.

    vLLM does this in threads, and keeps processed images by the hash of their content: a frame that stays in a history
    is processed once. Raises vLLM's errors and ValueError for what the model cannot take.
    """
    from vllm.renderers.params import ChatParams

    parameters = ChatParams(chat_template_kwargs={"add_generation_prompt": True, "tokenize": False})
    _, (prompt,) = await llm.renderer.render_chat_async([messages(turns)], parameters)
    return prompt


def messages(turns: Sequence[ChatTurn]) -> list[dict[str, Any]]:
    """OpenAI's messages, with the frames as images in memory before the text. A turn without frames is plain text,
    which every chat template takes."""
    from PIL import Image

    return [
        {
            "role": turn.role,
            "content": [
                *({"type": "image_pil", "image_pil": Image.fromarray(frame)} for frame in turn.images),
                {"type": "text", "text": turn.text},
            ]
            if turn.images
            else turn.text,
        }
        for turn in turns
    ]


def sampling(request: ChatRequest, prompt_tokens: int, max_model_len: int) -> SamplingParams:
    """The answer's tokens are cut to what the context leaves. Raises PolicyError("too_large") when it leaves none."""
    from vllm.sampling_params import RequestOutputKind, SamplingParams, StructuredOutputsParams

    room = max_model_len - prompt_tokens
    if room < 1:
        raise PolicyError(
            "too_large",
            f"the conversation takes {prompt_tokens} tokens, images included, and engine.max_model_len is "
            f"{max_model_len}: send fewer or smaller images, or raise it",
        )
    schema = request.json_schema
    return SamplingParams(
        temperature=request.temperature,
        max_tokens=min(request.max_tokens, room),
        seed=request.seed,
        # Without this the grammar allows any number of blanks between two fields, and an undecided model writes them.
        structured_outputs=None if schema is None else StructuredOutputsParams(json=schema),
        output_kind=RequestOutputKind.FINAL_ONLY,
    )
