"""`POST /act` of a model behind an API, from the door to the provider over real HTTP; only Ray is left out."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from deployments.transports.http import access
from tests.unit.deployments.engines.provider.openai_server import OpenAIServer, failed, openai_server, said
from tests.unit.deployments.transports.http.provider_app import ROBOT, SECRET, provider_app

LEADS = {"x": '["forward", 1.0, "it lies ahead"]'}
REST = '[null, 0.0, "no need"]'
AXES = ("x", "y", "z", "tilt", "roll", "rotation", "gripper")
FORWARD = "Ahead.\n```json\n{" + ", ".join(f'"{axis}": {LEADS.get(axis, REST)}' for axis in AXES) + "}\n```"
BODY = {"image": [[[0, 0, 0]] * 4] * 4, "instruction": "move ahead"}


@pytest.fixture(autouse=True)
def _process_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    make = logging.getLogRecordFactory()
    monkeypatch.setattr(access, "_keys", None)
    yield
    logging.setLogRecordFactory(make)


@pytest.fixture
async def provider() -> AsyncIterator[OpenAIServer]:
    async with openai_server() as server:
        server.answers(said(FORWARD))
        yield server


@pytest.fixture
async def client(
    provider: OpenAIServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[httpx.AsyncClient]:
    async with provider_app(provider, tmp_path, monkeypatch) as opened:
        yield opened


async def act(client: httpx.AsyncClient, key: str | None = ROBOT.key) -> httpx.Response:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    return await client.post("/act", json=BODY, headers={"x-timeout-s": "10"} | headers)


async def test_nobody_without_a_key_costs_money(client: httpx.AsyncClient, provider: OpenAIServer) -> None:
    assert (await act(client, None)).status_code == 401
    assert (await act(client, "rw_robot-1_" + "0" * 48)).status_code == 401
    assert provider.bodies == []


async def test_what_the_model_says_becomes_an_action(client: httpx.AsyncClient, provider: OpenAIServer) -> None:
    answer = await act(client)

    assert answer.status_code == 200, answer.text
    assert answer.json()[:6] == pytest.approx([0.011131, 0.0, 0.0, 0.0, 0.0, 0.0])
    assert provider.keys == [f"Bearer {SECRET}"], "and not the caller's"
    assert provider.bodies[0]["response_format"]["type"] == "json_schema"


async def test_a_limit_over_all_replicas_is_answered_429_with_when_to_come_back(
    client: httpx.AsyncClient, provider: OpenAIServer
) -> None:
    answers = [await act(client) for _ in range(5)]

    assert [answer.status_code for answer in answers] == [200] * 3 + [429] * 2
    assert len(provider.bodies) == 3
    refused = answers[-1]
    assert (refused.json()["kind"], refused.headers["x-ratelimit-limit-requests"]) == ("overloaded", "3")
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert 1 <= int(refused.headers["retry-after"]) <= 60


async def test_a_wrong_key_of_the_server_is_told_without_the_key(
    client: httpx.AsyncClient, provider: OpenAIServer, caplog: pytest.LogCaptureFixture
) -> None:
    provider.answers(failed(401, f"Incorrect API key provided: {SECRET}"))

    answer = await act(client)

    assert (answer.status_code, answer.json()["kind"]) == (500, "internal")
    assert "check OPENAI_API_KEY" in answer.json()["message"]
    for text in (answer.text, caplog.text):
        assert SECRET not in text
        assert ROBOT.key not in text


async def test_health_says_that_limits_are_configured(client: httpx.AsyncClient) -> None:
    body = (await client.get("/health")).json()
    assert (body["status"], body["rate_limits_configured"], body["concurrency_limit"]) == ("healthy", True, 32)
