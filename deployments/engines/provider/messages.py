"""A ChatRequest in OpenAI's words, which litellm translates for each provider; and what it may cost in tokens. Pure."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from typing import Any

from PIL import Image

from deployments.protocol.act import ChatRequest, ChatTurn, Frame

Message = dict[str, Any]

BYTES_PER_TOKEN = 3  # of text; English has about four: the estimate is to be above the real number
TOKENS_PER_TURN = 8
PIXELS_PER_TOKEN = 750  # of an image: Anthropic's rule; OpenAI's tiles come to about as many
TOKENS_PER_IMAGE = 85


def messages_of(turns: Sequence[ChatTurn]) -> list[Message]:
    """OpenAI's messages; images are PNG in data URIs, so that the provider sees every pixel as it was."""
    return [_message(turn) for turn in turns]


def estimated_tokens(request: ChatRequest) -> int:
    """Tokens of prompt and longest answer, rather too many than too few."""
    text = sum(math.ceil(len(turn.text.encode()) / BYTES_PER_TOKEN) + TOKENS_PER_TURN for turn in request.turns)
    return text + sum(_image_tokens(image) for turn in request.turns for image in turn.images) + request.max_tokens


def response_format(schema: dict[str, object]) -> dict[str, Any]:
    """How OpenAI's API is asked for JSON of a schema. `strict` is said only of a schema that meets its conditions."""
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": _is_strict(schema)}}


def _message(turn: ChatTurn) -> Message:
    if not turn.images:
        return {"role": turn.role, "content": turn.text}
    images = [{"type": "image_url", "image_url": {"url": _data_uri(image)}} for image in turn.images]
    return {"role": turn.role, "content": [*images, {"type": "text", "text": turn.text}]}


def _data_uri(image: Frame) -> str:
    png = io.BytesIO()
    Image.fromarray(image).save(png, format="PNG", compress_level=1)
    return f"data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}"


def _image_tokens(image: Frame) -> int:
    return TOKENS_PER_IMAGE + math.ceil(image.shape[0] * image.shape[1] / PIXELS_PER_TOKEN)


def _is_strict(schema: object) -> bool:
    """Whether every object in the schema requires all its properties and allows no others."""
    if isinstance(schema, list):
        return all(map(_is_strict, schema))
    if not isinstance(schema, dict):
        return True
    if schema.get("type") == "object":
        complete = set(schema.get("required", ())) == set(schema.get("properties", {}))
        if not complete or schema.get("additionalProperties") is not False:
            return False
    return all(map(_is_strict, schema.values()))
