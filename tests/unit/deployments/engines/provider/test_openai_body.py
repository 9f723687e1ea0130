"""What a client may ask of a model behind an API: what reaches litellm, and what never does."""

from __future__ import annotations

import base64
import io
from typing import Any

import orjson
import pytest
from PIL import Image

from deployments.engines.provider.openai_body import ChatAsked
from deployments.errors import PolicyError

HI = [{"role": "user", "content": "hi"}]
CALL = {"id": "1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}


def asked(**body: Any) -> ChatAsked:
    return ChatAsked.of(orjson.dumps({"messages": HI} | body))


def uri(width: int = 500, height: int = 300, kind: str = "PNG") -> str:
    file = io.BytesIO()
    Image.new("RGB", (width, height)).save(file, format=kind)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


def image(url: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]


def test_what_openai_knows_is_passed_on_as_it_was_given() -> None:
    given: dict[str, Any] = {
        "temperature": 0.5, "top_p": 0.9, "n": 2, "stop": ["\n"], "seed": 3, "tools": [TOOL], "tool_choice": "auto",
        "response_format": {"type": "json_object"}, "logit_bias": {"7": -100.0}, "user": "u",
    }  # fmt: skip

    fields = asked(**given, max_tokens=5, model="any").prepared().fields

    assert fields == given | {"messages": HI, "max_tokens": 5}


def test_the_newer_name_of_the_bound_wins_and_is_sent_under_the_name_that_litellm_translates() -> None:
    fields = asked(max_tokens=5, max_completion_tokens=7).prepared().fields

    assert fields["max_tokens"] == 7
    assert "max_completion_tokens" not in fields


@pytest.mark.parametrize(
    "field", ["api_base", "api_key", "base_url", "custom_llm_provider", "mock_response", "extra_headers", "fallbacks"]
)
def test_nobody_outside_says_where_a_call_goes_or_with_which_key(field: str) -> None:
    with pytest.raises(PolicyError, match=f"{field}: a model behind an API does not take this"):
        asked(**{field: "http://elsewhere"})


def test_fields_that_are_null_are_not_given() -> None:
    assert asked(tools=None, top_k=None, stream=None).prepared().fields.keys() == {"messages", "max_tokens"}


def test_an_answer_comes_back_in_a_history_without_what_only_answers_have() -> None:
    answer = {
        "role": "assistant",
        "content": None,
        "tool_calls": [CALL],
        "refusal": None,
        "annotations": [],
        "audio": 1,
    }
    result = {"role": "tool", "tool_call_id": "1", "content": "a wall"}

    messages = asked(messages=[*HI, answer, result]).prepared().fields["messages"]

    assert messages[1:] == [{"role": "assistant", "tool_calls": [CALL]}, result]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
def test_images_in_data_uris_are_passed_on(kind: str) -> None:
    messages = image(uri(kind=kind))
    assert asked(messages=messages).prepared().fields["messages"] == messages


@pytest.mark.parametrize(
    "url", ["http://10.0.0.1/secret", "file:///etc/passwd", "data:text/plain;base64,AAAA", "a.png"]
)
def test_nothing_is_fetched_for_a_client(url: str) -> None:
    with pytest.raises(PolicyError, match="this server fetches nothing"):
        asked(messages=image(url)).prepared()


@pytest.mark.parametrize("data", ["", "no base64!", "AAAA", base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()])
def test_what_is_no_image_is_refused_before_it_costs_money(data: str) -> None:
    with pytest.raises(PolicyError, match="an image cannot be read"):
        asked(messages=image(f"data:image/png;base64,{data}")).prepared()


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "god", "content": "hi"}]}, "messages.0.role"),
        (
            {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}]},
            "messages.0.content",
        ),
        ({"temperature": "1"}, "temperature"),
        ({"tools": [1]}, "tools.0"),
    ],
)
def test_a_wrong_field_is_named(body: dict[str, Any], field: str) -> None:
    with pytest.raises(PolicyError) as caught:
        asked(**body)
    assert (caught.value.kind, caught.value.message.startswith(field)) == ("invalid_request", True), caught.value


@pytest.mark.parametrize("body", [b"", b"[]", b"7", b"{"])
def test_what_is_no_object_is_told(body: bytes) -> None:
    with pytest.raises(PolicyError, match="must be a JSON object"):
        ChatAsked.of(body)


def test_the_estimate_counts_prompt_images_tools_and_all_answers() -> None:
    # 30 bytes / 3 + 8; 300 * 500 / 750 + 85; an empty list of tools: 2 bytes / 3 + 8; two answers of 100
    content = [{"type": "text", "text": "x" * 30}, {"type": "image_url", "image_url": {"url": uri()}}]
    plain = asked(messages=[{"role": "user", "content": content}], max_tokens=100, n=2)
    assert plain.prepared().tokens == 18 + 285 + 9 + 200
    assert asked(tools=[TOOL]).prepared().tokens > asked().prepared().tokens


def test_a_stream_says_at_its_end_what_it_used_whoever_asked_for_it() -> None:
    assert asked(stream=True).prepared().fields["stream_options"] == {"include_usage": True}
    assert not asked(stream=True).wants_usage
    assert asked(stream=True, stream_options={"include_usage": True}).wants_usage
