"""OpenAI's chat route in front of a model behind an API: JSON or server-sent events, as its clients read them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from typing import Any

import orjson

from deployments.access.limiter import Usage
from deployments.engines.provider.calls import Asked, ProviderCalls, used_tokens
from deployments.engines.provider.openai_body import ChatAsked
from deployments.errors import PolicyError
from deployments.protocol.exchange import HttpCall, HttpHead, HttpPiece
from deployments.protocol.generate import GenerateFailure

JSON = HttpHead(200, (("content-type", "application/json"),), 0)
EVENTS = HttpHead(200, (("content-type", "text/event-stream; charset=utf-8"),), 0)
# What of litellm's objects is OpenAI's, and goes to a client.
MESSAGE = ("role", "content", "refusal", "reasoning_content", "tool_calls", "function_call")
USAGE = (
    "prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details", "completion_tokens_details",
)  # fmt: skip

Json = dict[str, Any]
Stream = Any  # litellm's CustomStreamWrapper: an asynchronous iterator with `aclose`


class OpenAIChat:
    """`call` is one HTTP exchange. `served_name`: what answers say in `model`."""

    def __init__(self, served_name: str, calls: ProviderCalls, clock: Callable[[], float]) -> None:
        self._served_name = served_name
        self._calls = calls
        self._clock = clock

    async def call(self, call: HttpCall) -> AsyncGenerator[HttpPiece]:
        """First the head, then the body's pieces as they come; a GenerateFailure where there is no answer, or where it
        breaks off. Closing (or cancelling) this generator ends the call of the API."""
        try:
            body = await asyncio.to_thread(ChatAsked.of, call.body)
            async with aclosing(self._events(call, body) if body.stream else self._whole(call, body)) as pieces:
                async for piece in pieces:
                    yield piece
        except PolicyError as error:
            yield GenerateFailure(call.request_id, error.kind, error.message, error.retry_after_s, error.rate_limit)

    async def _whole(self, call: HttpCall, body: ChatAsked) -> AsyncGenerator[HttpPiece]:
        async def read(response: Any, usage: Usage) -> Json:
            usage.tokens = used_tokens(response)
            return _answer(response, self._served_name)

        asked = Asked(call.request_id, call.deadline_unix_s, body.prepared, read)
        async with self._calls.call(asked) as begun:
            yield JSON
            yield orjson.dumps(begun.answer)

    async def _events(self, call: HttpCall, body: ChatAsked) -> AsyncGenerator[HttpPiece]:
        """What fails before the first piece fails as a whole, and may be tried again before."""

        async def read(stream: Stream, usage: Usage) -> tuple[Stream, Any]:
            try:
                return stream, await self._calls.translated(anext(stream, None))
            except BaseException:
                await stream.aclose()
                raise

        asked = Asked(call.request_id, call.deadline_unix_s, body.prepared, read)
        async with self._calls.call(asked) as begun, aclosing(begun.answer[0]) as stream:
            yield EVENTS
            chunk = begun.answer[1]
            while chunk is not None:
                begun.usage.tokens = used_tokens(chunk) or begun.usage.tokens
                for event in _events_of(chunk, self._served_name, body.wants_usage):
                    yield b"data: " + orjson.dumps(event) + b"\n\n"
                chunk = await self._next(stream, begun.ends_unix_s)
            yield b"data: [DONE]\n\n"

    async def _next(self, stream: Stream, ends_unix_s: float) -> Any:
        """The next piece, None at the end."""
        try:
            async with asyncio.timeout(max(0.0, ends_unix_s - self._clock())):
                return await self._calls.translated(anext(stream, None))
        except TimeoutError:
            message = f"the provider {self._calls.model.provider} did not end its answer in time"
            raise PolicyError("deadline_exceeded", message) from None


def _answer(response: Any, model: str) -> Json:
    given: Json = response.model_dump(mode="json")
    choices = [
        {
            "index": choice.get("index", 0),
            "message": {"role": "assistant", "content": None} | _known(choice["message"], MESSAGE),
            "logprobs": choice.get("logprobs"),
            "finish_reason": choice.get("finish_reason"),
        }
        for choice in given["choices"]
    ]
    return _envelope(given, "chat.completion", model, choices) | {"usage": _usage(given)}


def _events_of(chunk: Any, model: str, wants_usage: bool) -> Iterator[Json]:
    """One event for what was said, and one for what was used."""
    given: Json = chunk.model_dump(mode="json")
    choices = [
        {
            "index": choice.get("index", 0),
            "delta": _known(choice["delta"], MESSAGE),
            "logprobs": choice.get("logprobs"),
            "finish_reason": choice.get("finish_reason"),
        }
        for choice in given.get("choices", ())
    ]
    said = [choice for choice in choices if choice["delta"] or choice["finish_reason"]]
    if said:
        yield _envelope(given, "chat.completion.chunk", model, said)
    if wants_usage and given.get("usage"):
        yield _envelope(given, "chat.completion.chunk", model, []) | {"usage": _usage(given)}


def _envelope(given: Json, kind: str, model: str, choices: list[Json]) -> Json:
    return {
        "id": given.get("id"), "object": kind, "created": given.get("created"), "model": model, "choices": choices,
    }  # fmt: skip


def _usage(given: Json) -> Json:
    return _known(given.get("usage") or {}, USAGE)


def _known(given: Json, names: tuple[str, ...]) -> Json:
    return {name: given[name] for name in names if given.get(name) is not None}
