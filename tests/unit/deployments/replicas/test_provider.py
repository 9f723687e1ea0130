"""The replica of a policy behind an API, over real HTTP to a provider on loopback; no Ray is started."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from configs.base import ConfigError
from configs.providers import ModelLimits
from deployments.access.limiter import Usage
from deployments.errors import PolicyError
from deployments.protocol.act import ChatAnswer, ChatRequest, ChatResult, ChatTurn
from deployments.protocol.generate import GenerateFailure
from deployments.replicas.provider import ProviderReplica
from tests.unit.deployments.engines.provider.openai_server import OpenAIServer, failed, openai_server, said

KEYS = {"OPENAI_API_KEY": "key-0123456789-of-nobody"}


class Refusing:
    """Limits that let nothing through."""

    @asynccontextmanager
    async def permission(self, tokens: int, deadline_unix_s: float, lease_s: float) -> AsyncIterator[Usage]:
        raise PolicyError("overloaded", "full", retry_after_s=7.0, rate_limit=(("x-ratelimit-limit-requests", "1"),))
        yield Usage()

    def refused_by_provider(self, seconds: float) -> None: ...


@pytest.fixture
async def provider() -> AsyncIterator[OpenAIServer]:
    async with openai_server() as server:
        yield server


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    make = logging.getLogRecordFactory()
    yield
    logging.setLogRecordFactory(make)


async def started(
    provider: OpenAIServer, environment: dict[str, str] = KEYS, connect: Any = None, **settings: Any
) -> ProviderReplica:
    policy = {"kind": "provider", "model": "openai/gpt-4o", "api_base": provider.address, "retries": 0} | settings
    replica: Any = object.__new__(ProviderReplica)  # as Serve does: its constructor is awaited
    await replica.__init__(policy, environment=environment, connect_limits=connect)
    return replica


def request(name: str = "r") -> ChatRequest:
    return ChatRequest(name, [ChatTurn("user", "hi")], time.time() + 60)


async def answers(replica: ProviderReplica, *requests: ChatRequest) -> list[ChatAnswer]:
    placed = [pair async for pairs in replica.chat(requests) for pair in pairs]
    return [answer for _, answer in sorted(placed, key=lambda pair: pair[0])]


async def test_requests_of_one_call_are_answered_each_for_itself(provider: OpenAIServer) -> None:
    provider.answers(failed(400, "bad image"), said("hello"))
    replica = await started(provider, concurrency=1)

    first, second = await answers(replica, request("a"), request("b"))

    assert isinstance(first, GenerateFailure)
    assert (first.request_id, first.kind) == ("a", "invalid_request")
    assert isinstance(second, ChatResult)
    assert (second.text, second.weight_version) == ("hello", 0)


async def test_a_refusal_keeps_what_the_caller_needs_to_come_back(provider: OpenAIServer, tmp_path: Path) -> None:
    file = tmp_path / "rate_limits.yaml"
    file.write_text("openai: {gpt-4o: {requests_per_minute: 1}}")
    asked: list[tuple[str, ModelLimits]] = []

    def connect(model: str, limits: ModelLimits) -> Refusing:
        asked.append((model, limits))
        return Refusing()

    replica = await started(provider, connect=connect, rate_limits=str(file))
    [answer] = await answers(replica, request())

    assert asked == [("openai/gpt-4o", ModelLimits(requests_per_minute=1))]
    assert answer == GenerateFailure("r", "overloaded", "full", 7.0, (("x-ratelimit-limit-requests", "1"),))
    assert provider.bodies == []


async def test_an_abandoned_request_ends_its_call(provider: OpenAIServer) -> None:
    provider.answers(said("never", waits_for=asyncio.Event()))
    replica = await started(provider)
    asking = asyncio.create_task(answers(replica, request()))
    await asyncio.wait_for(provider.arrived.wait(), 30)

    await replica.abandon(["r", "unknown"])

    [answer] = await asking
    assert isinstance(answer, GenerateFailure)
    assert answer.kind == "cancelled"
    await asyncio.wait_for(provider.left.wait(), 30)


async def test_a_provider_with_limits_and_no_key_stops_the_start(provider: OpenAIServer, tmp_path: Path) -> None:
    file = tmp_path / "rate_limits.yaml"
    file.write_text("anthropic: {models: {claude: {requests_per_minute: 1}}}")

    with pytest.raises(ConfigError, match="set ANTHROPIC_API_KEY in the environment of the replicas"):
        await started(provider, rate_limits=str(file))


async def test_a_model_without_limits_is_not_limited_and_that_is_said(
    provider: OpenAIServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "rate_limits.yaml"
    file.write_text("openai: {gpt-5: {requests_per_minute: 1}}")

    replica = await started(provider, connect=lambda *_: pytest.fail("there are no limits"), rate_limits=str(file))

    assert isinstance((await answers(replica, request()))[0], ChatResult)
    assert (await replica.status())["rate_limits_configured"] is False
    assert "says nothing about openai/gpt-4o" in caplog.text


async def test_the_status_says_what_the_health_route_promises_and_no_key(provider: OpenAIServer) -> None:
    replica = await started(provider, concurrency=3, timeout_s=9)

    status = await replica.status()
    await replica.check_health()

    assert {name: status[name] for name in ("model", "provider", "ready", "concurrency_limit", "timeout")} == {
        "model": "openai/gpt-4o", "provider": "openai", "ready": True, "concurrency_limit": 3, "timeout": 9.0,
    }  # fmt: skip
    assert KEYS["OPENAI_API_KEY"] not in repr(status) + repr(await replica.served())


async def test_keys_are_cut_out_of_the_logs_of_the_whole_process(
    provider: OpenAIServer, caplog: pytest.LogCaptureFixture
) -> None:
    await started(provider)

    logging.getLogger("some.library").warning("GET /?key=%s", KEYS["OPENAI_API_KEY"])

    assert "GET /?key=[redacted]" in caplog.text
