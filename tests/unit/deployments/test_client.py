"""The clients against a server played by httpx: what is tried again, under which id, and which error comes out."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from deployments import client
from deployments.client import AsyncPolicyClient, PolicyClient
from deployments.errors import PolicyError

Handler = Callable[[httpx.Request], httpx.Response]
ANSWER = {"choices": [{"text": "5"}], "weight_version": 3}


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "MAX_WAIT_S", 0.0)


def served(handler: Handler, retries: int = 3) -> PolicyClient:
    return PolicyClient("http://policy", retries=retries, transport=httpx.MockTransport(handler))


def refusal(status: int, kind: str) -> httpx.Response:
    return httpx.Response(status, json={"kind": kind, "message": "no"}, headers={"Retry-After": "1"})


def test_a_retryable_refusal_is_tried_again_under_the_same_request_id() -> None:
    seen: list[str] = []

    def server(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["x-request-id"])
        return refusal(429, "overloaded") if len(seen) < 3 else httpx.Response(200, json=ANSWER)

    with served(server) as policy:
        assert policy.complete("hello", max_tokens=4) == ANSWER
    assert len(seen) == 3
    assert len(set(seen)) == 1


def test_retries_are_bounded_and_the_servers_kind_comes_out() -> None:
    seen: list[httpx.Request] = []

    def server(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return refusal(503, "stale_weights")

    with served(server, retries=2) as policy, pytest.raises(PolicyError, match="stale_weights: no") as caught:
        policy.models()
    assert len(seen) == 3
    assert caught.value.retry_after_s == 1


def test_what_can_never_succeed_is_sent_once() -> None:
    seen: list[httpx.Request] = []

    def server(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return refusal(413, "too_large")

    with served(server) as policy, pytest.raises(PolicyError, match="too_large"):
        policy.complete("x")
    assert len(seen) == 1


def test_a_server_that_cannot_be_reached_is_unavailable() -> None:
    def server(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with served(server, retries=1) as policy, pytest.raises(PolicyError, match="unavailable: http://policy"):
        policy.health()


def test_a_slow_server_is_deadline_exceeded() -> None:
    def server(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("slow")

    with served(server, retries=0) as policy, pytest.raises(PolicyError, match="deadline_exceeded"):
        policy.health()


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (httpx.Response(503, json={"status": "unhealthy"}), "unavailable"),
        (httpx.Response(502, text="bad gateway"), "unavailable"),
        (httpx.Response(404, json={"error": {"message": "no such model", "code": 404}}), "not_found"),
        (httpx.Response(500, json=["odd"]), "internal"),
        (httpx.Response(200, text="<html>"), "internal"),
    ],
)
def test_an_answer_that_is_not_ours_gets_the_kind_of_its_status(answer: httpx.Response, kind: str) -> None:
    with served(lambda _: answer, retries=0) as policy, pytest.raises(PolicyError) as caught:
        policy.health()
    assert caught.value.kind == kind


def test_token_ids_travel_as_the_prompt_and_nothing_is_sent_that_was_not_given() -> None:
    bodies: list[dict[str, Any]] = []

    def server(request: httpx.Request) -> httpx.Response:
        bodies.append(json.loads(request.content))
        return httpx.Response(200, json=ANSWER)

    with served(server) as policy:
        policy.complete(token_ids=(1, 2), temperature=0)
        policy.chat([{"role": "user", "content": "hi"}], model="p")
        with pytest.raises(ValueError, match="either prompt or token_ids"):
            policy.complete("a", token_ids=[1])
    assert bodies == [
        {"prompt": [1, 2], "temperature": 0},
        {"messages": [{"role": "user", "content": "hi"}], "model": "p"},
    ]


async def test_the_async_client_keeps_the_same_rules() -> None:
    seen: list[str] = []

    async def server(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["x-request-id"])
        return refusal(503, "unavailable") if len(seen) < 2 else httpx.Response(200, json={"data": [{"id": "p"}]})

    async with AsyncPolicyClient("http://policy", transport=httpx.MockTransport(server)) as policy:
        assert await policy.models() == ["p"]
    assert len(seen) == 2
    assert len(set(seen)) == 1
