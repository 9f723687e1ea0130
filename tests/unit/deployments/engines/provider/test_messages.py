"""What a conversation is in OpenAI's words, and about how many tokens it takes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from deployments.engines.provider.images import png_uri
from deployments.engines.provider.messages import estimated_tokens, messages_of, response_format
from deployments.protocol.act import ChatRequest, ChatTurn

FRAME = np.zeros((300, 500, 3), np.uint8)


def request(*turns: ChatTurn, max_tokens: int = 100) -> ChatRequest:
    return ChatRequest("r", turns, deadline_unix_s=0.0, max_tokens=max_tokens)


def test_a_turn_without_images_is_plain_text() -> None:
    turns = [ChatTurn("system", "s"), ChatTurn("user", "u"), ChatTurn("assistant", "a")]
    assert messages_of(turns, png_uri) == [{"role": turn.role, "content": turn.text} for turn in turns]


def test_images_stand_before_the_text() -> None:
    [message] = messages_of([ChatTurn("user", "u", (FRAME, FRAME))], png_uri)
    assert [part["type"] for part in message["content"]] == ["image_url", "image_url", "text"]


def test_the_estimate_counts_text_images_turns_and_the_longest_answer() -> None:
    # 30 bytes / 3 + 8, twice; 300 * 500 / 750 + 85; 100 for the answer
    asked = request(ChatTurn("user", "x" * 30, (FRAME,)), ChatTurn("assistant", "x" * 30))
    assert estimated_tokens(asked) == 18 + 18 + 285 + 100


def test_text_that_is_no_english_is_counted_by_its_bytes() -> None:
    assert estimated_tokens(request(ChatTurn("user", "前進"), max_tokens=0)) == 2 + 8


@pytest.mark.parametrize(
    ("schema", "strict"),
    [
        ({"type": "object", "properties": {"a": {}}, "required": ["a"], "additionalProperties": False}, True),
        ({"type": "object", "properties": {"a": {}}, "required": ["a"]}, False),
        ({"type": "object", "properties": {"a": {}}, "additionalProperties": False}, False),
        ({"type": "array", "items": {"type": "object", "properties": {"a": {}}}}, False),
        ({"anyOf": [{"type": "object", "properties": {"a": {}}}, {"type": "null"}]}, False),
        ({"type": "string"}, True),
    ],
)
def test_a_schema_is_called_strict_only_where_openai_would_take_it_as_that(
    schema: dict[str, Any], strict: bool
) -> None:
    assert response_format(schema)["json_schema"]["strict"] is strict
