"""Who asks whom, and until when."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from fastapi import Request

from configs.serving import ServeConfig
from deployments.errors import PolicyError
from deployments.transports.http.asked import (
    chats,
    chosen,
    json_object,
    named_by_model,
    policy_name,
    session_id,
    time_limit_s,
)

CONFIG = ServeConfig.parse({"policies": [{"model": "m"}], "max_body_bytes": 1 << 20})


def request(headers: dict[str, str] | None = None, query: str = "", path_name: str | None = None) -> Request:
    encoded = [(k.encode(), v.encode()) for k, v in (headers or {}).items()]
    path = {} if path_name is None else {"name": path_name}
    return Request({"type": "http", "headers": encoded, "query_string": query.encode(), "path_params": path})


def with_body(*pieces: bytes, ends: bool = True) -> Request:
    async def bodies() -> AsyncIterator[dict[str, Any]]:
        for place, piece in enumerate(pieces):
            more = not ends or place < len(pieces) - 1
            yield {"type": "http.request", "body": piece, "more_body": more}
        await asyncio.Event().wait()

    iterator = bodies()
    return Request({"type": "http", "headers": []}, receive=iterator.__anext__)


@pytest.mark.parametrize(
    ("asked", "named", "session"),
    [
        (request({"x-session-id": "robot-1", "x-forwarded-for": "10.0.0.7"}), "body", "robot-1"),
        (request({"x-forwarded-for": "10.0.0.7"}), "body", "body"),
        (request({"x-forwarded-for": "10.0.0.7, 127.0.0.1"}), None, "address 10.0.0.7"),
    ],
)
def test_a_session_is_named_by_header_then_body_then_address(asked: Request, named: str | None, session: str) -> None:
    assert session_id(asked, named) == session


def test_requests_from_nowhere_share_no_history() -> None:
    assert session_id(request(), None) == ""


def test_a_session_cannot_be_named_by_a_novel() -> None:
    with pytest.raises(PolicyError, match="session_id: at most 200 characters, not 201"):
        session_id(request({"x-session-id": "x" * 201}), None)


def test_the_path_wins_over_the_query_and_the_query_over_the_body() -> None:
    assert policy_name(request(query="policy=b", path_name="a"), "c") == "a"
    assert policy_name(request(query="policy=b"), "c") == "b"
    assert policy_name(request(), "c") == "c"
    assert policy_name(request(), None) is None


def test_a_client_may_wait_for_less_than_the_policy_lets_it_but_not_for_more() -> None:
    assert time_limit_s(request(), 30.0) == 30.0
    assert time_limit_s(request({"x-timeout-s": "0.5"}), 30.0) == 0.5
    assert time_limit_s(request({"x-timeout-s": "99"}), 30.0) == 30.0


@pytest.mark.parametrize("text", ["soon", "0", "-1", "nan", ""])
def test_a_timeout_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(PolicyError, match="x-timeout-s"):
        time_limit_s(request({"x-timeout-s": text}), 30.0)


async def test_a_large_body_is_parsed_like_a_small_one() -> None:
    large = {"image": [[[1, 2, 3]] * 64] * 256}
    assert await json_object(with_body(orjson.dumps(large)), CONFIG, 10.0) == large
    assert await json_object(with_body(b'{"a": ', b"1}"), CONFIG, 10.0) == {"a": 1}


async def test_a_client_that_does_not_finish_its_body_is_let_go() -> None:
    with pytest.raises(PolicyError, match=r"deadline_exceeded: the body did not arrive within 0\.01 s"):
        await json_object(with_body(b"{", ends=False), CONFIG, 0.01)


async def test_nesting_without_end_is_no_json_object() -> None:
    with pytest.raises(PolicyError, match="invalid_request"):
        await json_object(with_body(b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"), CONFIG, 10.0)


LOCAL: dict[str, object] = {"name": "local", "model": "m"}
GPT: dict[str, object] = {"name": "gpt", "kind": "provider", "model": "openai/gpt-4o"}
ARM: dict[str, object] = {"name": "arm", "kind": "chunks", "checkpoint": "c"}


@pytest.mark.parametrize(
    ("policies", "named", "answers"),
    [
        ([LOCAL, GPT, ARM], "gpt", "gpt"),
        ([LOCAL, GPT, ARM], "openai/gpt-4o", "gpt"),
        ([LOCAL, GPT, ARM], "local", "local"),
        ([GPT, ARM], "whatever", "gpt"),
        ([LOCAL, ARM], None, "local"),
        ([LOCAL, GPT], "whatever", None),
        ([GPT, ARM], "arm", None),
        ([GPT, {**GPT, "name": "openai-gpt"}], "openai/gpt-4o", "gpt"),
    ],
)
def test_a_conversation_is_answered_by_whoever_is_named_or_the_only_one_that_speaks(
    policies: list[dict[str, object]], named: str | None, answers: str | None
) -> None:
    config = ServeConfig.parse({"policies": policies})
    if answers is None:
        with pytest.raises(PolicyError, match="this route is answered by"):
            chosen(config.policies, named_by_model(config.policies, named), chats)
    else:
        assert chosen(config.policies, named_by_model(config.policies, named), chats).name == answers
