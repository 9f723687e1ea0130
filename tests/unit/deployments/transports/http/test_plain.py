"""Which requests take the short way, and as what."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from deployments.protocol.act import ChatTurn
from deployments.protocol.completion import CompletionRequest
from deployments.transports.http.plain import Terms, plain, wants_usage
from deployments.transports.http.requests import BODIES, SampledBody, typed, within_bound

COMPLETION, CHAT = "/v1/completions", "/v1/chat/completions"
NULL_IN_VLLM = ("max_tokens", "temperature", "top_p", "seed", "stream", "user", "model")
USER = {"role": "user", "content": "You play X."}


def body(path: str, fields: dict[str, Any]) -> SampledBody:
    return typed(BODIES[path], fields)


def short(path: str, fields: dict[str, Any]) -> CompletionRequest | None:
    asked = body(path, fields)
    return plain(asked, within_bound(asked, 100, 400), Terms("r1", 5, 30.0, 1000.0))


def test_a_request_takes_its_sampling_its_deadline_and_an_id_of_its_own_along() -> None:
    fields = {"prompt": [1, 2], "max_tokens": 3, "temperature": 0, "top_p": 0.5, "seed": 7, "ignore_eos": True}
    one, other = short(COMPLETION, fields), short(COMPLETION, fields)
    assert one is not None
    assert other is not None
    sampling = one.sampling
    assert (one.prompt, sampling.max_tokens, sampling.temperature) == ([1, 2], 3, 0.0)
    assert (sampling.top_p, sampling.seed, sampling.ignore_eos) == (0.5, 7, True)
    assert (sampling.logprobs, one.stream) == (False, False)
    assert (one.min_weight_version, one.deadline_s, one.deadline_unix_s) == (5, 30.0, 1030.0)
    assert one.request_id.startswith("r1-")
    assert one.request_id != other.request_id


@pytest.mark.parametrize(
    ("path", "fields", "null_in_vllm"),
    [(COMPLETION, {"prompt": "You"}, NULL_IN_VLLM), (CHAT, {"messages": [USER]}, (*NULL_IN_VLLM, "n"))],
    ids=["completion", "chat"],
)
def test_null_is_as_good_as_absent_where_vllm_takes_it(
    path: str, fields: dict[str, Any], null_in_vllm: tuple[str, ...]
) -> None:
    absent = short(path, fields)
    assert absent is not None
    for field in null_in_vllm:
        null = short(path, {**fields, field: None})
        assert null is not None, field
        assert replace(null, request_id=absent.request_id) == absent, field


def test_a_completion_has_openais_defaults() -> None:
    request = short(COMPLETION, {"prompt": "You"})
    assert request is not None
    assert (request.sampling.max_tokens, request.sampling.temperature, request.sampling.top_p) == (16, 1.0, 1.0)


@pytest.mark.parametrize(
    ("fields", "max_tokens"),
    [({}, 100), ({"max_tokens": 7}, 7), ({"max_completion_tokens": 9, "max_tokens": 7}, 9)],
)
def test_a_chat_has_the_bound_that_it_names_or_the_policys(fields: dict[str, Any], max_tokens: int) -> None:
    request = short(CHAT, {"messages": [{"role": "system", "content": "Play."}, USER], **fields})
    assert request is not None
    assert request.prompt == (ChatTurn("system", "Play."), ChatTurn("user", "You play X."))
    assert request.sampling.max_tokens == max_tokens
    assert request.as_fits == (not fields), "who names no bound takes what fits"


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": ""},
        {"prompt": []},
        {"prompt": ["a", "b"]},
        {"prompt": [[1, 2]]},
        {"prompt": "a", "n": 2},
        {"prompt": "a", "max_tokens": 0},
        {"prompt": "a", "stop": "."},
        {"prompt": "a", "logprobs": 1},
        {"prompt": "a", "echo": True},
        {"prompt": "a", "a_field_of_vllm": 1},
        {"prompt": "a", "stream_options": {"include_usage": True}},
        {"prompt": "a", "stream": True, "stream_options": {"continuous_usage_stats": True}},
        {"prompt": "a", "stream": True, "stream_options": {"include_usage": "yes"}},
    ],
)
def test_every_other_completion_is_vllms(fields: dict[str, Any]) -> None:
    assert short(COMPLETION, fields) is None


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"messages": []},
        {"messages": "You"},
        {"messages": ["You"]},
        {"messages": [{"role": "tool", "content": "5"}]},
        {"messages": [{"role": "user", "content": None}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "You"}]}]},
        {"messages": [{"role": "user", "content": "You", "name": "Ann"}]},
        {"messages": [{"role": "assistant", "content": "5", "tool_calls": []}]},
        {"messages": [USER], "tools": []},
        {"messages": [USER], "response_format": {"type": "json_object"}},
        {"messages": [USER], "logprobs": True},
        {"messages": [USER], "n": 2},
        {"messages": [USER], "max_tokens": 0},
        {"messages": [USER], "max_completion_tokens": 0, "max_tokens": 5},
    ],
)
def test_every_other_chat_is_vllms(fields: dict[str, Any]) -> None:
    assert short(CHAT, fields) is None


def test_a_batch_of_chats_is_vllms() -> None:
    assert short("/v1/chat/completions/batch", {"messages": [[USER]]}) is None
    assert short("/v1/responses", {"messages": [USER], "input": "You"}) is None


def test_a_stream_counts_its_tokens_where_it_is_asked_to() -> None:
    streamed = {"prompt": "a", "stream": True}
    request = short(COMPLETION, {**streamed, "stream_options": {"include_usage": True}})
    assert request is not None
    assert request.stream
    for options, wanted in (({"include_usage": True}, True), ({"include_usage": False}, False), (None, False)):
        assert wants_usage(body(COMPLETION, {**streamed, "stream_options": options})) is wanted
    assert not wants_usage(body(COMPLETION, streamed))
