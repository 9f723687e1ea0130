"""OpenAI's chat route in front of a model behind an API, over real HTTP to a provider on loopback."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from typing import Any

import orjson
import pytest

from configs.policies import ProviderPolicy
from deployments.engines.provider.engine import ProviderEngine
from deployments.protocol.exchange import HttpCall, HttpHead, HttpPiece
from deployments.protocol.generate import GenerateFailure
from tests.unit.deployments.engines.provider.openai_server import OpenAIServer, failed, said, streamed
from tests.unit.deployments.engines.provider.test_engine import KEY, Limits

HI = [{"role": "user", "content": "hi"}]


@pytest.fixture
def start(litellm: Any, provider: OpenAIServer) -> Any:
    def started(limits: Limits | None = None, **settings: Any) -> ProviderEngine:
        policy = {
            "kind": "provider",
            "name": "gpt",
            "model": "openai/gpt-4o",
            "api_base": provider.address,
            "retries": 0,
        }
        policy |= settings
        return ProviderEngine(ProviderPolicy.model_validate(policy), litellm, {"OPENAI_API_KEY": KEY}, limits)

    return started


def call(deadline_s: float = 60.0, **body: Any) -> HttpCall:
    content = orjson.dumps({"messages": HI} | body)
    return HttpCall("r-1", "POST", "/v1/chat/completions", "", (), content, time.time() + deadline_s)


async def pieces_of(engine: ProviderEngine, asked: HttpCall) -> list[HttpPiece]:
    async with aclosing(engine.openai.call(asked)) as pieces:
        return [piece async for piece in pieces]


async def answer_of(engine: ProviderEngine, **body: Any) -> dict[str, Any]:
    head, content = await pieces_of(engine, call(**body))
    assert isinstance(head, HttpHead)
    assert (head.status, head.headers) == (200, (("content-type", "application/json"),))
    assert isinstance(content, bytes)
    return dict(orjson.loads(content))


async def events_of(engine: ProviderEngine, **body: Any) -> list[dict[str, Any]]:
    head, *events = await pieces_of(engine, call(stream=True, **body))
    assert isinstance(head, HttpHead)
    assert head.headers[0][1].startswith("text/event-stream")
    assert events[-1] == b"data: [DONE]\n\n"
    return [orjson.loads(event.removeprefix(b"data: ")) for event in events[:-1] if isinstance(event, bytes)]


async def failure_of(engine: ProviderEngine, asked: HttpCall) -> GenerateFailure:
    *_, last = await pieces_of(engine, asked)
    assert isinstance(last, GenerateFailure)
    assert last.request_id == "r-1"
    return last


async def test_an_answer_has_openais_form_and_says_who_gave_it(start: Any, provider: OpenAIServer) -> None:
    answer = await answer_of(start(), temperature=0.25, max_tokens=7)

    message = {"role": "assistant", "content": "hello"}
    assert answer["choices"] == [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}]
    assert (answer["object"], answer["model"]) == ("chat.completion", "gpt")
    assert answer["usage"] == {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12}
    [body] = provider.bodies
    assert (body["model"], body["messages"], body["temperature"], body["max_tokens"]) == ("gpt-4o", HI, 0.25, 7)
    assert provider.keys == [f"Bearer {KEY}"]


async def test_tool_calls_come_back_as_they_were_said(start: Any, provider: OpenAIServer) -> None:
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
    called = {"id": "1", "type": "function", "function": {"name": "look", "arguments": '{"at": "ö"}'}}
    reply = said(None, "tool_calls")
    reply.body["choices"][0]["message"]["tool_calls"] = [called]
    provider.answers(reply)

    answer = await answer_of(start(), tools=[tool], tool_choice="required")

    assert answer["choices"][0]["message"] == {"role": "assistant", "content": None, "tool_calls": [called]}
    assert provider.bodies[0]["tools"] == [tool]
    assert provider.bodies[0]["tool_choice"] == "required"


async def test_a_field_that_the_model_cannot_take_is_refused_and_not_left_out(
    litellm: Any, provider: OpenAIServer
) -> None:
    policy = ProviderPolicy(kind="provider", model="anthropic/claude-3-haiku-20240307", api_base=provider.address)
    engine = ProviderEngine(policy, litellm, {})

    failure = await failure_of(engine, call(seed=3, n=1, logit_bias={"1": 1.0}))

    assert (failure.kind, "logit_bias" in failure.message) == ("invalid_request", True), failure
    assert provider.bodies == []


async def test_the_pieces_of_a_stream_join_to_the_answer(start: Any, provider: OpenAIServer) -> None:
    provider.answers(streamed("he", "ll", "ö"))

    events = await events_of(start())

    deltas = [event["choices"][0]["delta"] for event in events]
    assert "".join(delta.get("content", "") for delta in deltas) == "hellö"
    assert deltas[0]["role"] == "assistant"
    assert [event["choices"][0]["finish_reason"] for event in events[:-1]] == [None] * (len(events) - 1)
    assert events[-1]["choices"][0]["finish_reason"] == "stop"
    assert {(event["object"], event["model"]) for event in events} == {("chat.completion.chunk", "gpt")}
    assert not any("usage" in event for event in events)


async def test_a_stream_says_what_it_used_to_whoever_asks(start: Any, provider: OpenAIServer) -> None:
    provider.answers(streamed("hi", tokens=40))

    events = await events_of(start(), stream_options={"include_usage": True})

    assert (events[-1]["choices"], events[-1]["usage"]["total_tokens"]) == ([], 40)


async def test_the_limits_hear_what_a_stream_used_once_it_has_ended(start: Any, provider: OpenAIServer) -> None:
    limits = Limits()
    provider.answers(streamed("hi", tokens=40))

    await events_of(start(limits), max_tokens=100)

    assert len(limits.asked) == 1
    assert limits.asked[0] > 100
    assert limits.used == [40]


async def test_a_stream_holds_its_place_until_its_end(start: Any, provider: OpenAIServer) -> None:
    proceed = asyncio.Event()
    provider.answers(streamed("he", "llo", waits_for=proceed), said("next"))
    engine = start(concurrency=1)
    async with aclosing(engine.openai.call(call(stream=True))) as pieces:
        assert isinstance(await anext(pieces), HttpHead)

        failure = await failure_of(engine, call(deadline_s=0.2))

        assert (failure.kind, len(provider.bodies)) == ("overloaded", 1)
        proceed.set()
        assert [piece async for piece in pieces][-1] == b"data: [DONE]\n\n"
    assert (await answer_of(engine))["choices"][0]["message"]["content"] == "next"


async def test_a_client_that_leaves_a_stream_ends_it_at_the_provider(start: Any, provider: OpenAIServer) -> None:
    provider.answers(streamed("he", "llo", waits_for=asyncio.Event()))
    limits = Limits()
    pieces = start(limits).openai.call(call(stream=True))
    assert isinstance(await anext(pieces), HttpHead)
    assert isinstance(await anext(pieces), bytes)

    await pieces.aclose()

    await asyncio.wait_for(provider.left.wait(), 30)
    assert limits.used == [None]


async def test_a_passing_failure_before_the_first_piece_is_tried_again(start: Any, provider: OpenAIServer) -> None:
    provider.answers(failed(503, "oops", {"retry-after": "0"}), streamed("hi"))

    events = await events_of(start(retries=1))

    assert "".join(event["choices"][0]["delta"].get("content", "") for event in events) == "hi"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_failure_has_its_kind_and_no_key(start: Any, provider: OpenAIServer, stream: bool) -> None:
    provider.answers(failed(401, f"Incorrect API key provided: {KEY}"))

    [failure] = await pieces_of(start(), call(stream=stream))

    assert isinstance(failure, GenerateFailure)
    assert (failure.kind, "check OPENAI_API_KEY" in failure.message) == ("internal", True)
    assert KEY not in failure.message


async def test_a_refusal_says_when_to_come_back(start: Any, provider: OpenAIServer) -> None:
    provider.answers(failed(429, "slow down", {"retry-after": "17"}))

    failure = await failure_of(start(), call(stream=True))

    assert (failure.kind, failure.retry_after_s) == ("overloaded", 17)


async def test_a_stream_that_breaks_off_is_no_whole_answer(start: Any, provider: OpenAIServer) -> None:
    provider.answers(streamed("he", "llo", breaks_off=True))

    pieces = await pieces_of(start(), call(stream=True))

    assert isinstance(pieces[0], HttpHead)
    assert isinstance(pieces[-1], GenerateFailure)
    assert pieces[-1].kind == "unavailable"
    assert b"data: [DONE]\n\n" not in pieces


async def test_a_stream_that_stands_still_ends_with_the_deadline(start: Any, provider: OpenAIServer) -> None:
    provider.answers(streamed("he", "llo", waits_for=asyncio.Event()))

    failure = await failure_of(start(timeout_s=0.5), call(stream=True))

    assert failure.kind == "deadline_exceeded"
    await asyncio.wait_for(provider.left.wait(), 30)


async def test_a_body_that_cannot_be_asked_reaches_nobody(start: Any, provider: OpenAIServer) -> None:
    failure = await failure_of(start(), call(api_base="http://elsewhere"))

    assert (failure.kind, provider.bodies) == ("invalid_request", [])
