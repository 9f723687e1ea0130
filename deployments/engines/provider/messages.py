"""A ChatRequest in OpenAI's words, which litellm translates for each provider; and what it may cost in tokens. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from deployments.protocol.act import ChatRequest, ChatTurn, Frame

Message = dict[str, Any]

BYTES_PER_TOKEN = 3  # of text; English has about four: the estimate is to be above the real number
TOKENS_PER_TURN = 8
PIXELS_PER_TOKEN = 750  # of an image: Anthropic's rule; OpenAI's tiles come to about as many
TOKENS_PER_IMAGE = 85


def messages_of(turns: Sequence[ChatTurn], uri: Callable[[Frame], str]) -> list[Message]:
    """OpenAI's messages; `uri` gives a frame as a data URI."""
    return [_message(turn, uri) for turn in turns]


def estimated_tokens(request: ChatRequest) -> int:
    """Tokens of prompt and longest answer, rather too many than too few."""
    text = sum(text_tokens(turn.text) for turn in request.turns)
    images = sum(image_tokens(*image.shape[:2]) for turn in request.turns for image in turn.images)
    return text + images + request.max_tokens


def text_tokens(text: str) -> int:
    """Of one message."""
    return math.ceil(len(text.encode()) / BYTES_PER_TOKEN) + TOKENS_PER_TURN


def image_tokens(height: int, width: int) -> int:
    return TOKENS_PER_IMAGE + math.ceil(height * width / PIXELS_PER_TOKEN)


def response_format(schema: dict[str, object]) -> dict[str, Any]:
    """How OpenAI's API is asked for JSON of a schema. `strict` is said only of a schema that meets its conditions."""
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": _is_strict(schema)}}


def _message(turn: ChatTurn, uri: Callable[[Frame], str]) -> Message:
    if not turn.images:
        return {"role": turn.role, "content": turn.text}
    images = [{"type": "image_url", "image_url": {"url": uri(image)}} for image in turn.images]
    return {"role": turn.role, "content": [*images, {"type": "text", "text": turn.text}]}


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
