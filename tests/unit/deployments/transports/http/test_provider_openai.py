"""OpenAI's own client asks a model behind an API through the application: with our key, under our limits."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import openai
import pytest

from deployments.transports.http import access
from tests.unit.deployments.engines.provider.openai_server import OpenAIServer, failed, openai_server, streamed
from tests.unit.deployments.transports.http.provider_app import ROBOT, SECRET, provider_app

HI: list[object] = [{"role": "user", "content": "hi"}]


@pytest.fixture(autouse=True)
def _process_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    make = logging.getLogRecordFactory()
    monkeypatch.setattr(access, "_keys", None)
    yield
    logging.setLogRecordFactory(make)


@pytest.fixture
async def provider() -> AsyncIterator[OpenAIServer]:
    async with openai_server() as server:
        yield server


@pytest.fixture
async def http(
    provider: OpenAIServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[httpx.AsyncClient]:
    async with provider_app(provider, tmp_path, monkeypatch) as opened:
        yield opened


@pytest.fixture
def client(http: httpx.AsyncClient) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url="http://test/v1", api_key=ROBOT.key, http_client=http, max_retries=0)


@pytest.mark.parametrize("model", ["gpt", "openai/gpt-4o", "whatever-the-client-knows"])
async def test_the_client_gets_its_answer_by_the_policys_name_or_the_models(
    client: openai.AsyncOpenAI, provider: OpenAIServer, model: str
) -> None:
    answer = await client.chat.completions.create(model=model, messages=HI)  # type: ignore[arg-type]

    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("hello", "stop")
    assert (answer.model, answer.usage and answer.usage.total_tokens) == ("gpt", 12)
    assert provider.keys == [f"Bearer {SECRET}"], "and not the caller's"
    assert provider.bodies[0]["max_tokens"] == 4096, "the policy's bound, where the client names none"


async def test_the_client_reads_a_stream(client: openai.AsyncOpenAI, provider: OpenAIServer) -> None:
    provider.answers(streamed("he", "llo"))

    stream = await client.chat.completions.create(
        model="gpt",
        messages=HI,
        stream=True,
        stream_options={"include_usage": True},  # type: ignore[arg-type]
    )
    chunks = [chunk async for chunk in stream]

    assert "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices) == "hello"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 12


async def test_the_client_finds_the_model(client: openai.AsyncOpenAI) -> None:
    assert [model.id async for model in client.models.list()] == ["gpt"]
    assert (await client.models.retrieve("gpt")).id == "gpt"


async def test_a_limit_over_all_replicas_is_a_rate_limit_error_with_when_to_come_back(
    client: openai.AsyncOpenAI, provider: OpenAIServer
) -> None:
    for _ in range(3):
        await client.chat.completions.create(model="gpt", messages=HI, timeout=10)  # type: ignore[arg-type]

    with pytest.raises(openai.RateLimitError) as caught:
        await client.chat.completions.create(
            model="gpt",
            messages=HI,
            extra_headers={"x-timeout-s": "1"},  # type: ignore[arg-type]
        )

    assert len(provider.bodies) == 3
    assert 1 <= int(caught.value.response.headers["retry-after"]) <= 60
    assert caught.value.response.headers["x-ratelimit-limit-requests"] == "3"


async def test_more_tokens_than_the_policy_allows_cost_nothing(
    client: openai.AsyncOpenAI, provider: OpenAIServer
) -> None:
    with pytest.raises(openai.APIStatusError, match="max_new_tokens is 4096") as caught:
        await client.chat.completions.create(model="gpt", messages=HI, max_tokens=5000)  # type: ignore[arg-type]
    assert (caught.value.status_code, provider.bodies) == (413, [])


async def test_a_caller_without_a_key_costs_nothing(http: httpx.AsyncClient, provider: OpenAIServer) -> None:
    client = openai.AsyncOpenAI(base_url="http://test/v1", api_key="wrong", http_client=http, max_retries=0)
    with pytest.raises(openai.AuthenticationError):
        await client.chat.completions.create(model="gpt", messages=HI)  # type: ignore[arg-type]
    assert provider.bodies == []


async def test_a_wrong_key_of_the_server_is_no_fault_of_the_clients_key(
    client: openai.AsyncOpenAI, provider: OpenAIServer
) -> None:
    provider.answers(failed(401, f"Incorrect API key provided: {SECRET}"))

    with pytest.raises(openai.InternalServerError, match="check OPENAI_API_KEY") as caught:
        await client.chat.completions.create(model="gpt", messages=HI)  # type: ignore[arg-type]

    assert SECRET not in caught.value.response.text


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/responses", "/tokenize"])
async def test_routes_of_other_models_say_that_nobody_answers_them(
    http: httpx.AsyncClient, provider: OpenAIServer, path: str
) -> None:
    headers = {"authorization": f"Bearer {ROBOT.key}"}
    answer = await http.post(path, json={"model": "gpt", "prompt": "hi", "input": "hi"}, headers=headers)
    assert (answer.status_code, answer.json()["kind"]) == (404, "not_found")
    assert provider.bodies == []
