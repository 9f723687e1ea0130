"""The ingress with all its routes around a replica in memory: no Ray, no engine."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from ray.exceptions import ActorUnavailableError

from deployments.engines.vllm.openai import OpenAIRoutes
from deployments.protocol.act import ChatTurn
from deployments.protocol.completion import Completion, CompletionRequest
from deployments.protocol.exchange import HttpCall
from deployments.protocol.generate import GenerateFailure, GeneratePiece
from deployments.replicas.backlog import Backlog
from deployments.transports.http import cors, ingress


class Stream:
    """A streaming call through a handle: the items of an asynchronous generator, with `.cancel()`."""

    def __init__(self, items: AsyncGenerator[Any]) -> None:
        self._items = items
        self.cancelled = False

    def __aiter__(self) -> AsyncGenerator[Any]:
        return self._items

    def cancel(self) -> None:
        self.cancelled = True


class Replica:
    """Stands for a replica and all the handles to it."""

    def __init__(self) -> None:
        self.completed: list[CompletionRequest] = []
        self.forwarded: list[tuple[HttpCall, dict[str, Any]]] = []
        self.failure: GenerateFailure | None = None
        self.dies: list[Exception] = []  # a completion ends so, one each
        self.complete = SimpleNamespace(remote=lambda requests: Stream(self._complete(requests)))
        self.openai = SimpleNamespace(remote=lambda call: Stream(self._openai(call)))
        self.status = SimpleNamespace(remote=self._status)
        self.remote = None  # of a method that is named in `options`

    def options(self, **_: Any) -> Replica:
        return self

    async def _status(self) -> dict[str, Any]:
        return {"policy": "policy", "weight_version": 7}

    async def _complete(self, requests: Sequence[CompletionRequest]) -> AsyncGenerator[Any]:
        self.completed += requests
        if self.dies:
            raise self.dies.pop()
        for place, request in enumerate(requests):
            if request.stream:
                yield [(place, GeneratePiece("O", 7)), (place, GeneratePiece(" and ", 7))]
            answer = self.failure or Completion(request.request_id, "X", "stop", 3, 1, weight_version=7)
            yield [(place, answer)]

    async def _openai(self, call: HttpCall) -> AsyncGenerator[Any]:
        app = FastAPI()

        @app.api_route("/{path:path}", methods=["GET", "POST"])
        async def echo(path: str, request: Request) -> dict[str, Any]:
            body = await request.json() if await request.body() else {}
            self.forwarded.append((call, body))
            return {"path": path, "body": body}

        async for piece in OpenAIRoutes(app).call(call, 7):  # type: ignore[arg-type]
            yield piece


@pytest.fixture
def replica() -> Replica:
    return Replica()


@pytest.fixture
async def client(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx.AsyncClient]:
    context = SimpleNamespace(app_name="rayward", servable_object=None)
    monkeypatch.setattr("ray.serve.get_replica_context", lambda: context)
    monkeypatch.setattr("ray.serve.get_deployment_handle", lambda name, app: replica)
    policies = [{"name": "policy", "model": "m", "max_new_tokens": 100, "request_deadline_s": 30.0}]
    written: Any = next(c for c in ingress.Ingress.__mro__ if c.__name__ == "Ingress" and "_policy" in vars(c))
    context.servable_object = object.__new__(written)
    written.__init__(context.servable_object, {"policies": policies, "max_body_bytes": 2048})
    transport = httpx.ASGITransport(app=ingress.api)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as opened:
        yield opened


async def test_a_plain_completion_goes_the_short_way(client: httpx.AsyncClient, replica: Replica) -> None:
    headers = {"x-request-id": "r1", "x-min-weight-version": "5"}
    answer = await client.post("/v1/completions", json={"prompt": "You", "max_tokens": 4}, headers=headers)
    body = answer.json()
    assert answer.status_code == 200
    assert (body["id"], body["choices"][0]["text"], body["weight_version"]) == ("cmpl-r1", "X", 7)
    assert answer.headers["x-weight-version"] == "7"
    assert body["usage"] == {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
    [request] = replica.completed
    assert (request.min_weight_version, request.deadline_s, request.sampling.max_tokens) == (5, 30.0, 4)
    assert not replica.forwarded


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/chat/completions/"])
async def test_a_plain_chat_goes_the_short_way(client: httpx.AsyncClient, replica: Replica, path: str) -> None:
    messages = [{"role": "system", "content": "Play."}, {"role": "user", "content": "You"}]
    headers = {"x-request-id": "r1", "x-min-weight-version": "5"}
    answer = await client.post(path, json={"messages": messages, "temperature": 0}, headers=headers)
    body = answer.json()
    assert (answer.status_code, body["id"], body["object"]) == (200, "chatcmpl-r1", "chat.completion")
    assert body["choices"][0]["message"]["content"] == "X"
    assert answer.headers["x-weight-version"] == "7"
    [request] = replica.completed
    assert request.prompt == (ChatTurn("system", "Play."), ChatTurn("user", "You"))
    assert (request.min_weight_version, request.sampling.temperature, request.sampling.max_tokens) == (5, 0.0, 100)
    assert not replica.forwarded


@pytest.mark.parametrize(
    ("path", "asked", "said"),
    [
        ("/v1/completions", {"prompt": "You"}, [{"text": "O"}, {"text": " and "}, {"text": ""}]),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": "You"}]},
            [{"delta": {"role": "assistant", "content": ""}}]
            + [{"delta": delta} for delta in ({"content": "O"}, {"content": " and "}, {})],
        ),
    ],
)
async def test_a_plain_stream_goes_the_short_way(
    client: httpx.AsyncClient, replica: Replica, path: str, asked: dict[str, Any], said: list[dict[str, Any]]
) -> None:
    options = {"stream": True, "stream_options": {"include_usage": True}}
    answer = await client.post(path, json={**asked, **options}, headers={"x-request-id": "r1"})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert answer.headers["x-weight-version"] == "7"
    *events, end = answer.text.removesuffix("\n\n").split("\n\n")
    assert end == "data: [DONE]"
    *texts, usage = [json.loads(event.removeprefix("data: ")) for event in events]
    assert [event["choices"][0] for event in texts] == [
        {"index": 0, **one, "logprobs": None, "finish_reason": "stop" if one is said[-1] else None} for one in said
    ]
    assert (usage["choices"], usage["usage"]["total_tokens"], usage["model"]) == ([], 4, "policy")
    assert all(event["usage"] is None for event in texts)
    assert len({event["id"] for event in [*texts, usage]}) == 1
    assert not replica.forwarded


async def test_only_a_post_takes_the_short_way(client: httpx.AsyncClient, replica: Replica) -> None:
    await client.request("GET", "/v1/completions", json={"prompt": "You"})
    assert (len(replica.completed), len(replica.forwarded)) == (0, 1)


async def test_a_stream_that_fails_before_it_begins_has_a_status_and_later_an_event(
    client: httpx.AsyncClient, replica: Replica
) -> None:
    body = {"prompt": "You", "stream": True}
    replica.dies = [ActorUnavailableError("gone", None)]
    assert "[DONE]" in (await client.post("/v1/completions", json=body)).text, "another replica answers"
    replica.dies = [ActorUnavailableError("gone", None)] * 5
    assert (await client.post("/v1/completions", json=body)).status_code == 503
    replica.dies = []
    replica.failure = GenerateFailure("r", "engine_failed", "it broke")
    answer = await client.post("/v1/completions", json=body, headers={"x-request-id": "r1"})
    assert answer.status_code == 200
    *_, last = answer.text.removesuffix("\n\n").split("\n\n")
    event = json.loads(last.removeprefix("data: "))
    assert (event["kind"], event["request_id"], event["error"]["message"]) == ("engine_failed", "r1", "it broke")


async def test_a_failure_of_the_replica_gets_its_status(client: httpx.AsyncClient, replica: Replica) -> None:
    replica.failure = GenerateFailure("r", "stale_weights", "no version 9")
    answer = await client.post("/v1/completions", json={"prompt": "You"})
    assert (answer.status_code, answer.json()["kind"]) == (503, "stale_weights")


async def test_what_is_not_plain_is_forwarded_with_version_and_deadline(
    client: httpx.AsyncClient, replica: Replica
) -> None:
    headers = {"x-min-weight-version": "5"}
    answer = await client.post("/v1/completions", json={"prompt": "You", "stop": ".", "model": "x"}, headers=headers)
    assert answer.status_code == 200
    assert answer.headers["x-weight-version"] == "7"
    [(call, body)] = replica.forwarded
    assert (call.path, call.min_weight_version) == ("/v1/completions", 5)
    assert 0 < call.remaining_s(time.time()) <= 30
    assert body == {"prompt": "You", "stop": ".", "model": "policy"}


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/chat/completions/"])
async def test_a_chat_is_forwarded_with_the_policys_bound(
    client: httpx.AsyncClient, replica: Replica, path: str
) -> None:
    answer = await client.post(path, json={"messages": []})
    assert answer.status_code == 200
    assert replica.forwarded[0][1] == {"messages": [], "model": "policy", "max_completion_tokens": 100}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"prompt": "You", "max_tokens": 101}),
        ("/v1/completions", {"prompt": "You", "max_tokens": 51, "n": 2}),
        ("/v1/chat/completions", {"messages": [], "max_tokens": 51, "n": 2}),
        ("/v1/messages", {"messages": [], "max_tokens": 101}),
        ("/v1/responses", {"input": "You", "max_output_tokens": 101}),
    ],
)
async def test_too_many_tokens_reach_no_replica(
    client: httpx.AsyncClient, replica: Replica, path: str, body: dict[str, Any]
) -> None:
    answer = await client.post(path, json=body)
    assert (answer.status_code, answer.json()["kind"]) == (413, "too_large")
    assert not replica.forwarded + replica.completed  # type: ignore[operator]


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions", "/tokenize", "/v1/messages"])
@pytest.mark.parametrize("field", [{"ignore_eos": None}, {"model": ["a"]}, {"temperature": "1"}])
async def test_a_wrong_type_reaches_no_replica(
    client: httpx.AsyncClient, replica: Replica, path: str, field: dict[str, Any]
) -> None:
    answer = await client.post(path, json={"prompt": "You", "messages": [], **field})
    assert (answer.status_code, answer.json()["kind"]) == (400, "invalid_request")
    assert next(iter(field)) in answer.json()["message"]
    assert not replica.forwarded + replica.completed  # type: ignore[operator]


@pytest.mark.parametrize("route", ["act", "get_action"])
@pytest.mark.parametrize("spelling", ["/{}", "/{}/", "/policies/policy/{}"])
async def test_robots_and_players_have_routes_that_say_who_answers_them(
    client: httpx.AsyncClient, route: str, spelling: str
) -> None:
    answer = await client.post(
        spelling.format(route), json={"task_name": "t", "instruction": "go", "image": {"data": "AAAA"}}
    )
    assert (answer.status_code, answer.json()["kind"]) == (404, "not_found")
    assert "this route is answered by: none" in answer.json()["message"]


@pytest.mark.parametrize("spelling", ["/reset", "/reset/", "/policies/policy/reset"])
async def test_there_is_nothing_to_reset_without_a_policy_that_remembers(
    client: httpx.AsyncClient, spelling: str
) -> None:
    answer = await client.post(spelling)
    assert answer.status_code == (404 if "policies" in spelling else 200)


async def test_a_page_in_a_browser_may_call_where_it_is_named(client: httpx.AsyncClient) -> None:
    cors.allow(["https://lab.example"])
    try:
        answer = await client.get("/health", headers={"Origin": "https://lab.example"})
    finally:
        cors.allow([])
    assert answer.headers["access-control-allow-origin"] == "https://lab.example"


async def test_health_says_what_the_readers_of_several_systems_look_for(client: httpx.AsyncClient) -> None:
    told = (await client.get("/health")).json()
    assert (told["status"], told["ready"], told["model"], told["timeout"]) == ("healthy", True, "policy", 30.0)
    keys = {"device", "timestamp", "service", "gpu_available", "rate_limits_configured", "concurrency_limit", "version"}
    assert keys <= set(told)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("HEAD", "/health", 200),
        ("GET", "/health", 200),
        ("GET", "/v1/models", 200),
        ("GET", "/v1/models/", 200),
        ("GET", "/v1/models/policy", 200),
        ("GET", "/v1/models/other", 404),
        ("GET", "/no/such/route", 404),
        ("POST", "/health", 405),
        ("DELETE", "/v1/completions", 405),
        ("GET", "/metrics", 200),
        ("GET", "/", 200),
    ],
)
async def test_routes_that_probes_and_clients_ask_for(
    client: httpx.AsyncClient, method: str, path: str, status: int
) -> None:
    answer = await client.request(method, path)
    assert answer.status_code == status
    if status >= 400:
        assert set(answer.json()) == {"kind", "message", "detail", "request_id", "error"}


async def test_a_body_over_the_limit_is_refused(client: httpx.AsyncClient) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield b"x" * 1024

    for path in ("/v1/completions", "/v1/chat/completions"):
        answer = await client.post(path, content=chunks())
        assert (answer.status_code, answer.json()["kind"]) == (413, "too_large")


async def test_a_client_says_how_long_it_waits_on_the_openai_routes_too(
    client: httpx.AsyncClient, replica: Replica
) -> None:
    headers = {"x-timeout-s": "2.5"}
    await client.post("/v1/completions", json={"prompt": "You"}, headers=headers)
    await client.post("/v1/chat/completions", json={"messages": []}, headers=headers)
    assert replica.completed[0].deadline_s == 2.5
    assert 0 < replica.forwarded[0][0].remaining_s(time.time()) <= 2.5
    refused = await client.post("/v1/completions", json={"prompt": "You"}, headers={"x-timeout-s": "soon"})
    assert (refused.status_code, refused.json()["kind"]) == (400, "invalid_request")


async def test_a_refusal_of_a_busy_replica_says_when_to_try_again(client: httpx.AsyncClient, replica: Replica) -> None:
    replica.failure = GenerateFailure("r", "overloaded", "a queue", retry_after_s=7.2)
    answer = await client.post("/v1/completions", json={"prompt": "You"})
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "8")


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
async def test_what_would_wait_in_vain_is_refused_before_its_body_is_read(
    client: httpx.AsyncClient, replica: Replica, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Backlog, "expected_s", lambda self: 20.0)
    read = []

    async def body() -> AsyncIterator[bytes]:
        read.append(path)
        yield b"{}"

    answer = await client.post(path, content=body())
    assert (answer.status_code, answer.json()["kind"]) == (429, "overloaded")
    assert answer.headers["retry-after"] == "20"
    assert not read
    assert (await client.get("/v1/models")).status_code == 200


async def test_a_completion_that_died_with_its_replica_is_answered_by_another(
    client: httpx.AsyncClient, replica: Replica
) -> None:
    replica.dies = [ActorUnavailableError("gone", None)]
    answer = await client.post("/v1/completions", json={"prompt": "You"}, headers={"x-timeout-s": "9"})
    assert (answer.status_code, len(replica.completed)) == (200, 2)
    replica.dies = [ActorUnavailableError("gone", None)] * 5
    lost = await client.post("/v1/completions", json={"prompt": "You"})
    assert (lost.status_code, lost.json()["kind"], lost.headers["retry-after"]) == (503, "unavailable", "1")
