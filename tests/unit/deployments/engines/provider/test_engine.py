"""A policy behind an API, over real HTTP: what is sent, what comes back, and what every failure means."""

from __future__ import annotations

import asyncio
import base64
import io
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from PIL import Image

from configs.base import ConfigError
from configs.policies import ProviderPolicy
from deployments.access.limiter import Usage
from deployments.engines.provider.calls import model_of
from deployments.engines.provider.engine import ProviderEngine
from deployments.errors import PolicyError
from deployments.protocol.act import ChatRequest, ChatTurn
from tests.unit.deployments.engines.provider.openai_server import OpenAIServer, failed, said

KEY = "key-0123456789-of-nobody"
SCHEMA: dict[str, object] = {
    "type": "object",
    "properties": {"x": {"type": "number"}},
    "required": ["x"],
    "additionalProperties": False,
}


class Limits:
    """Permits everything, and remembers what it was asked and told."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.used: list[int | None] = []
        self.closed: list[float] = []

    @asynccontextmanager
    async def permission(self, tokens: int, deadline_unix_s: float, lease_s: float) -> AsyncIterator[Usage]:
        self.asked.append(tokens)
        usage = Usage()
        try:
            yield usage
        finally:
            self.used.append(usage.tokens)

    def refused_by_provider(self, seconds: float) -> None:
        self.closed.append(seconds)


@pytest.fixture
def start(litellm: Any, provider: OpenAIServer) -> Any:
    def started(limits: Limits | None = None, **settings: Any) -> ProviderEngine:
        policy = ProviderPolicy.model_validate(
            {"kind": "provider", "model": "openai/gpt-4o", "api_base": provider.address, "retries": 0} | settings
        )
        return ProviderEngine(policy, litellm, {"OPENAI_API_KEY": KEY}, limits)

    return started


def request(*turns: ChatTurn, deadline_s: float = 60.0, **fields: Any) -> ChatRequest:
    return ChatRequest("r-1", turns or (ChatTurn("user", "hi"),), time.time() + deadline_s, **fields)


async def failure(engine: ProviderEngine, asked: ChatRequest | None = None) -> PolicyError:
    with pytest.raises(PolicyError) as caught:
        await engine(asked or request())
    assert caught.value.request_id == "r-1"
    return caught.value


async def test_a_conversation_reaches_the_provider_with_its_images_pixel_for_pixel(
    start: Any, provider: OpenAIServer
) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)

    result = await start()(
        request(
            ChatTurn("system", "You drive."),
            ChatTurn("user", "What now?", (frame, frame[::-1].copy())),
            temperature=0.25,
            max_tokens=77,
            seed=5,
        )
    )

    assert result.text == "hello"
    [body] = provider.bodies
    assert (body["model"], body["temperature"], body["max_tokens"], body["seed"]) == ("gpt-4o", 0.25, 77, 5)
    assert body["messages"][0] == {"role": "system", "content": "You drive."}
    first, second, text = body["messages"][1]["content"]
    assert text == {"type": "text", "text": "What now?"}
    for part, expected in ((first, frame), (second, frame[::-1])):
        data = part["image_url"]["url"].removeprefix("data:image/png;base64,")
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))), expected)
    assert provider.keys == [f"Bearer {KEY}"]
    assert "response_format" not in body


@pytest.mark.parametrize(("structured", "sent"), [("auto", True), ("on", True), ("off", False)])
async def test_an_answer_is_held_to_a_schema_where_the_api_can(
    start: Any, provider: OpenAIServer, structured: str, sent: bool
) -> None:
    await start(structured=structured)(request(json_schema=SCHEMA))

    expected = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True}}
    assert provider.bodies[0].get("response_format") == (expected if sent else None)


async def test_a_model_that_takes_no_schema_is_not_sent_one(litellm: Any) -> None:
    def takes(model: str) -> bool:
        policy = ProviderPolicy(kind="provider", model=model)
        return ProviderEngine(policy, litellm, {})._takes_schema

    assert takes("openai/gpt-4o")
    assert not takes("openai/gpt-3.5-turbo")


async def test_tokens_are_reserved_by_an_estimate_and_settled_by_what_was_used(
    start: Any, provider: OpenAIServer
) -> None:
    limits = Limits()
    provider.answers(said("hello", tokens=123))

    await start(limits)(request(ChatTurn("user", "x" * 300), max_tokens=50))

    assert limits.asked == [300 // 3 + 8 + 50]
    assert limits.used == [123]


@pytest.mark.parametrize(
    ("reply", "kind", "told"),
    [
        (failed(401, f"Incorrect API key provided: {KEY}"), "internal", "check OPENAI_API_KEY"),
        (failed(403, "not allowed"), "internal", "check OPENAI_API_KEY and its account"),
        (failed(404, "no such model"), "internal", "knows no model 'openai/gpt-4o'"),
        (failed(400, "bad image"), "invalid_request", "bad image"),
        (failed(400, "too long", code="context_length_exceeded"), "too_large", "too long"),
        (failed(400, "no", code="content_policy_violation"), "refused", "no"),
        (failed(429, "slow down"), "overloaded", "slow down"),
        (failed(500, "oops"), "unavailable", "oops"),
        (failed(502, "oops"), "unavailable", "oops"),
        (failed(503, "oops"), "unavailable", "oops"),
        (said("", finish_reason="length"), "too_large", "max_tokens"),
        (said(None), "engine_failed", "answered nothing"),
        (said(None, finish_reason="content_filter"), "refused", "content filter"),
        (said(None, refusal="I will not"), "refused", "I will not"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_every_failure_of_a_provider_has_a_kind_and_says_what_to_do(
    start: Any, provider: OpenAIServer, reply: Any, kind: str, told: str
) -> None:
    provider.answers(reply)

    error = await failure(start())

    assert (error.kind, told in error.message) == (kind, True), error
    assert KEY not in str(error)
    assert error.__cause__ is None, "litellm's exception holds the request with its key"
    assert len(provider.bodies) == 1


async def test_a_request_that_the_provider_cannot_process_is_the_callers_fault(
    start: Any, provider: OpenAIServer
) -> None:
    provider.answers(failed(422, "bad field"))

    error = await failure(start(retries=5))

    assert (error.kind, "bad field" in error.message) == ("invalid_request", True)
    assert len(provider.bodies) == 1


async def test_a_passing_failure_is_tried_again_and_its_result_is_as_if_nothing_happened(
    start: Any, provider: OpenAIServer
) -> None:
    provider.answers(failed(503, "oops"), failed(429, "slow down", {"retry-after": "0"}), said("at last"))

    assert (await start(retries=2)(request())).text == "at last"


async def test_tries_are_bounded(start: Any, provider: OpenAIServer) -> None:
    provider.answers(failed(503, "oops", {"retry-after": "0"}))

    assert (await failure(start(retries=3))).kind == "unavailable"
    assert len(provider.bodies) == 4


async def test_what_is_the_callers_fault_is_sent_once(start: Any, provider: OpenAIServer) -> None:
    provider.answers(failed(400, "bad image"))

    await failure(start(retries=3))

    assert len(provider.bodies) == 1


async def test_a_provider_that_says_when_to_come_back_is_believed_and_all_replicas_hear_of_it(
    start: Any, provider: OpenAIServer
) -> None:
    limits = Limits()
    provider.answers(failed(429, "slow down", {"retry-after": "17"}))

    error = await failure(start(limits, retries=3), request(deadline_s=10))

    assert (error.kind, error.retry_after_s) == ("overloaded", 17)
    assert error.headers()["Retry-After"] == "17"
    assert limits.closed == [17]
    assert len(provider.bodies) == 1, "a second try at the time named would come after the deadline"


async def test_a_provider_that_does_not_answer_is_given_up_after_the_timeout(
    start: Any, provider: OpenAIServer
) -> None:
    provider.answers(said("too late", waits_for=asyncio.Event()))

    error = await failure(start(timeout_s=0.2))

    assert (error.kind, "within 0.2 s" in error.message) == ("deadline_exceeded", True)


async def test_nobody_waits_past_the_callers_deadline(start: Any, provider: OpenAIServer) -> None:
    provider.answers(said("too late", waits_for=asyncio.Event()))

    assert (await failure(start(retries=5), request(deadline_s=0.2))).kind == "deadline_exceeded"
    assert (await failure(start(), request(deadline_s=-1))).kind in ("deadline_exceeded", "overloaded")
    assert len(provider.bodies) == 1


async def test_a_caller_that_leaves_ends_the_call_at_the_provider(start: Any, provider: OpenAIServer) -> None:
    provider.answers(said("never", waits_for=asyncio.Event()))
    calling = asyncio.create_task(start()(request()))
    await asyncio.wait_for(provider.arrived.wait(), 30)

    calling.cancel()

    with pytest.raises(asyncio.CancelledError):
        await calling
    await asyncio.wait_for(provider.left.wait(), 30)


async def test_the_concurrency_limit_limits(start: Any, provider: OpenAIServer) -> None:
    proceed = asyncio.Event()
    provider.answers(said("first", waits_for=proceed))
    engine = start(concurrency=1)
    first = asyncio.create_task(engine(request()))
    await asyncio.wait_for(provider.arrived.wait(), 30)

    error = await failure(engine, request(deadline_s=0.2))

    assert (error.kind, "1 calls of openai/gpt-4o were under way" in error.message) == ("overloaded", True)
    assert len(provider.bodies) == 1
    proceed.set()
    assert (await first).text == "first"


async def test_a_provider_that_cannot_be_reached_is_unavailable(litellm: Any) -> None:
    policy = ProviderPolicy(kind="provider", model="openai/gpt-4o", api_base="http://127.0.0.1:1/v1", retries=0)

    error = await failure(ProviderEngine(policy, litellm, {"OPENAI_API_KEY": KEY}))

    assert error.kind == "unavailable"


async def test_a_server_of_ones_own_needs_no_key(litellm: Any, provider: OpenAIServer) -> None:
    policy = ProviderPolicy(kind="provider", model="hosted_vllm/mine", api_base=provider.address)

    assert (await ProviderEngine(policy, litellm, {})(request())).text == "hello"
    assert provider.bodies[0]["model"] == "mine"


def test_a_model_of_no_known_provider_is_refused_with_the_spelling_that_works(litellm: Any) -> None:
    with pytest.raises(ConfigError, match=r"write PROVIDER/NAME, e\.g\. openai/my-model"):
        model_of(ProviderPolicy(kind="provider", model="my-model"), litellm)


async def test_the_key_is_in_no_log_whatever_fails(
    start: Any, provider: OpenAIServer, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """At the most talkative level, with a provider that repeats the key in its message."""
    caplog.set_level(logging.DEBUG)
    for name in ("LiteLLM", "openai", "httpx", "httpcore"):
        caplog.set_level(logging.DEBUG, logger=name)
    provider.answers(
        failed(401, f"Incorrect API key provided: {KEY}"), failed(400, f"your key {KEY} has no money"), said("hello")
    )
    engine = start()

    await failure(engine)
    assert "[redacted]" in (await failure(engine)).message
    await engine(request())

    out, err = capfd.readouterr()
    assert "call of openai/gpt-4o failed" in caplog.text
    for text in (caplog.text, out, err):
        assert KEY not in text
