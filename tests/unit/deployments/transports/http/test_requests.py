"""What a client sends is bounded while it is read, and typed before an engine sees it."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import Request

from deployments.errors import PolicyError
from deployments.transports.http.requests import (
    BODIES,
    ChatBody,
    CompletionBody,
    ResponsesBody,
    SampledBody,
    min_weight_version,
    parse,
    read_body,
    typed,
    within_bound,
)


def completion(**fields: Any) -> CompletionBody:
    return typed(CompletionBody, {"prompt": "You play X.", **fields})


WRONG = [
    ("ignore_eos", None),
    ("ignore_eos", 1),
    ("model", ["a"]),
    ("max_tokens", True),
    ("max_tokens", -1),
    ("max_tokens", "16"),
    ("max_tokens", 16.0),
    ("temperature", "1"),
    ("temperature", True),
    ("temperature", -0.5),
    ("temperature", float("nan")),
    ("temperature", float("inf")),
    ("top_p", 0),
    ("top_p", "0.9"),
    ("seed", 1.5),
    ("seed", 2**63),
    ("seed", False),
    ("n", "2"),
    ("n", 0),
    ("n", None),
    ("stream", "yes"),
    ("user", 7),
    ("prompt", {"text": "a"}),
    ("prompt", [1, True]),
    ("prompt", [1, -1]),
    ("prompt", [1, 2**40]),
    ("top_k", 1.5),
    ("min_p", "0"),
    ("min_tokens", None),
    ("presence_penalty", "0"),
    ("repetition_penalty", False),
    ("logit_bias", {"1": "2"}),
    ("logprobs", True),
    ("stop", 7),
    ("stop_token_ids", ["7"]),
    ("allowed_token_ids", [2**70]),
    ("bad_words", "no list"),
    ("kv_transfer_params", {"do_remote_decode": "no"}),
    ("priority", 2**63),
    ("allowed_token_ids", list(range(1025))),
    ("logit_bias", {str(token): 0.0 for token in range(1025)}),
    ("stop_token_ids", list(range(65))),
    ("logprob_token_ids", list(range(129))),
    ("stop", ["x"] * 65),
    ("bad_words", ["x"] * 65),
]


@pytest.mark.parametrize(("field", "value"), WRONG)
def test_a_wrong_type_is_refused_by_the_name_of_its_field(field: str, value: object) -> None:
    with pytest.raises(PolicyError, match=f"^invalid_request: {field}: ") as refused:
        completion(**{field: value})
    assert refused.value.http_status == 400


@pytest.mark.parametrize("path", sorted(BODIES))
@pytest.mark.parametrize(
    ("field", "value"), [("ignore_eos", None), ("temperature", "1"), ("seed", 1.5), ("model", ["a"]), ("n", True)]
)
def test_all_forwarded_routes_are_typed_alike(path: str, field: str, value: object) -> None:
    with pytest.raises(PolicyError, match=f"{field}: "):
        typed(BODIES[path], {field: value})


@pytest.mark.parametrize("text", [b'{"temperature": NaN}', b'{"temperature": Infinity}', b'{"temperature": -Infinity}'])
def test_nan_is_no_json_and_its_field_is_named(text: bytes) -> None:
    with pytest.raises(PolicyError, match="temperature: "):
        parse(text)


@pytest.mark.parametrize("text", [b"{not json", b"[1]", b'"text"', b"", b'{"anything_else": NaN}', b"[" * 100_000])
def test_what_is_no_json_object_is_refused(text: bytes) -> None:
    with pytest.raises(PolicyError, match="the body"):
        parse(text)


def test_a_long_wrong_value_is_not_sent_back_whole() -> None:
    with pytest.raises(PolicyError) as refused:
        completion(stop_token_ids=["x"] * 10_000)
    assert len(refused.value.message) < 300


@pytest.mark.parametrize(
    "body",
    [
        completion(max_tokens=101),
        completion(max_tokens=51, n=2),
        completion(max_tokens=51, best_of=2),
        completion(max_tokens=51, prompt=["a", "b"]),
        completion(max_tokens=26, prompt=[[1], [2]], n=2),
        completion(n=101, max_tokens=0),
        typed(ChatBody, {"max_tokens": 101}),
        typed(ChatBody, {"max_completion_tokens": 101, "max_tokens": 1}),
        typed(ChatBody, {"n": 101}),
        typed(BODIES["/v1/chat/completions/batch"], {"messages": [[], []], "max_tokens": 51}),
        typed(ResponsesBody, {"max_output_tokens": 101}),
        typed(SampledBody, {"max_tokens": 101}),
    ],
)
def test_the_tokens_of_all_answers_together_are_bounded(body: SampledBody) -> None:
    with pytest.raises(PolicyError) as refused:
        within_bound(body, 100, 1024)
    assert refused.value.kind == "too_large"


def test_a_chat_that_names_no_bound_gets_the_policys() -> None:
    assert within_bound(typed(ChatBody, {}), 100, 1024) == {"max_completion_tokens": 100}
    assert within_bound(typed(ChatBody, {"n": 4}), 100, 1024) == {"max_completion_tokens": 25}
    assert within_bound(typed(ResponsesBody, {}), 100, 1024) == {"max_output_tokens": 100}
    assert within_bound(typed(ChatBody, {"max_tokens": 7}), 100, 1024) == {}
    assert within_bound(completion(), 100, 1024) == {}


def test_a_chat_that_names_no_bound_leaves_half_of_the_context_to_its_prompt() -> None:
    assert within_bound(typed(ChatBody, {}), 1024, 256) == {"max_completion_tokens": 128}
    assert within_bound(typed(ResponsesBody, {}), 1024, 1024) == {"max_output_tokens": 512}


def request_of(*parts: bytes, headers: dict[str, str] | None = None) -> tuple[Request, list[bytes]]:
    """A request whose body comes in parts, and the list of those that were read."""
    left, read = list(parts), list[bytes]()

    async def receive() -> dict[str, Any]:
        read.append(left.pop(0))
        return {"type": "http.request", "body": read[-1], "more_body": bool(left)}

    raw = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    return Request({"type": "http", "method": "POST", "headers": raw}, receive), read


async def test_a_body_of_unknown_length_is_refused_while_it_is_read() -> None:
    request, read = request_of(*[b"x" * 100] * 1000)
    with pytest.raises(PolicyError) as refused:
        await read_body(request, 250)
    assert refused.value.kind == "too_large"
    assert len(read) == 3


async def test_a_declared_length_over_the_limit_is_refused_before_anything_is_read() -> None:
    request, read = request_of(b"x", headers={"content-length": "251"})
    with pytest.raises(PolicyError, match="over 250 bytes"):
        await read_body(request, 250)
    assert read == []


async def test_a_body_of_exactly_the_limit_is_read() -> None:
    request, _ = request_of(b"x" * 100, b"y" * 150)
    assert len(await read_body(request, 250)) == 250


@pytest.mark.parametrize("text", ["-1", "1.5", "new", "", "9" * 30, "²"])
def test_a_version_header_that_is_no_version_is_refused_by_name(text: str) -> None:
    request = Request({"type": "http", "headers": [(b"x-min-weight-version", text.encode("latin-1"))]})
    with pytest.raises(PolicyError, match="x-min-weight-version"):
        min_weight_version(request)


def test_the_version_header_is_read() -> None:
    assert min_weight_version(Request({"type": "http", "headers": [(b"x-min-weight-version", b"12")]})) == 12
    assert min_weight_version(Request({"type": "http", "headers": []})) == 0
