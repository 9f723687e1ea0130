"""`POST /act` of a model behind an API, from the door to the provider over real HTTP; only Ray is left out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from configs.providers import ModelLimits
from deployments.access.keys import new_key
from deployments.access.limiter import Limiter
from deployments.access.provider_limits import ProviderLimits
from deployments.replicas.provider import ProviderReplica
from deployments.transports.http import access, ingress
from tests.unit.deployments.engines.provider.openai_server import OpenAIServer, failed, openai_server, said

SECRET = "provider-key-0123456789"
ROBOT = new_key("robot-1")
LEADS = {"x": '["forward", 1.0, "it lies ahead"]'}
REST = '[null, 0.0, "no need"]'
AXES = ("x", "y", "z", "tilt", "roll", "rotation", "gripper")
FORWARD = "Ahead.\n```json\n{" + ", ".join(f'"{axis}": {LEADS.get(axis, REST)}' for axis in AXES) + "}\n```"
BODY = {"image": [[[0, 0, 0]] * 4] * 4, "instruction": "move ahead"}


class Call:
    """A method with `.remote()`, as of an actor or of a Serve handle."""

    def __init__(self, method: Any) -> None:
        self.remote = lambda *arguments: self._begun(method(*arguments))

    def _begun(self, result: Any) -> Any:
        return asyncio.shield(asyncio.ensure_future(result)) if asyncio.iscoroutine(result) else result


class Handle:
    """A Serve handle to two replicas, which answer by turns."""

    def __init__(self, replicas: list[ProviderReplica]) -> None:
        self._replicas = replicas
        self.status = Call(replicas[0].status)

    def options(self, **_: Any) -> Handle:
        return self

    def remote(self, requests: Any) -> Any:
        self._replicas.reverse()
        return self._replicas[0].chat(requests)


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
    """Of an application with one key, two replicas, and three calls per minute."""
    limits = tmp_path / "rate_limits.yaml"
    limits.write_text("openai: {models: {gpt-4o: {requests_per_minute: 3}}}")
    policy = {
        "name": "gpt", "kind": "provider", "model": "openai/gpt-4o", "api_base": provider.address, "retries": 0,
        "rate_limits": str(limits), "act": {"arm": {}},
    }  # fmt: skip
    limiter = Limiter()
    actor = SimpleNamespace(**{name: Call(getattr(limiter, name)) for name in ("acquire", "settle", "cancel", "close")})

    def connect(model: str, limits: ModelLimits) -> ProviderLimits:
        return ProviderLimits(actor, model, limits)

    replicas: list[Any] = [object.__new__(ProviderReplica) for _ in range(2)]
    for replica in replicas:
        await replica.__init__(policy, environment={"OPENAI_API_KEY": SECRET}, connect_limits=connect)
    context = SimpleNamespace(app_name="rayward", servable_object=None)
    monkeypatch.setattr("ray.serve.get_replica_context", lambda: context)
    monkeypatch.setattr("ray.serve.get_deployment_handle", lambda name, app: Handle(replicas))
    monkeypatch.setenv("KEYS", ROBOT.line)
    written: Any = next(c for c in ingress.Ingress.__mro__ if c.__name__ == "Ingress" and "_policy" in vars(c))
    context.servable_object = object.__new__(written)
    config = {"policies": [policy], "access": {"keys_variable": "KEYS"}}
    written.__init__(context.servable_object, config)
    transport = httpx.ASGITransport(app=ingress.api)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as opened:
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
