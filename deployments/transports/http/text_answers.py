"""Answers in text as OpenAI's API writes them, whole or as events: completions and chats."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from fastapi.responses import Response, StreamingResponse

from deployments.client.batcher import Batcher
from deployments.client.handle import failure_of
from deployments.client.resending import resending
from deployments.protocol.completion import Completion, CompletionPart, CompletionRequest
from deployments.protocol.generate import GenerateFailure, GeneratePiece
from deployments.transports.http.answers import WEIGHT_VERSION_HEADER, failure_event, json_answer, translated

Json = dict[str, Any]
END = b"data: [DONE]\n\n"


class CompletionFormat:
    """Of `/v1/completions` (https://platform.openai.com/docs/api-reference/completions)."""

    kind, event_kind, prefix = "text_completion", "text_completion", "cmpl"

    def whole(self, completion: Completion) -> Json:
        return {"text": completion.text}

    def first(self) -> Json | None:
        """The choice of an event before all text; None for no such event."""
        return None

    def piece(self, text: str) -> Json:
        return {"text": text}


class ChatFormat:
    """Of `/v1/chat/completions` (https://platform.openai.com/docs/api-reference/chat)."""

    kind, event_kind, prefix = "chat.completion", "chat.completion.chunk", "chatcmpl"

    def whole(self, completion: Completion) -> Json:
        return {"message": {"role": "assistant", "content": completion.text, "refusal": None, "tool_calls": []}}

    def first(self) -> Json | None:
        return {"delta": {"role": "assistant", "content": ""}}

    def piece(self, text: str) -> Json:
        return {"delta": {"content": text} if text else {}}


Format = CompletionFormat | ChatFormat


@dataclass(frozen=True, slots=True)
class Asked:
    """A plain request, and how its answer is written. `usage`: a stream has an event that counts the tokens."""

    request: CompletionRequest
    form: Format
    model: str
    request_id: str
    usage: bool = False


async def text_response(batcher: Batcher[CompletionRequest, CompletionPart], asked: Asked) -> Response:
    """The answer, or its beginning: the rest comes as events, of which those that are ready at the same time are
    written at once. Raises PolicyError for what fails before the first part of the answer is there."""
    parts: AsyncGenerator[list[CompletionPart]]
    begun: list[CompletionPart]
    parts, begun = await resending()(_begun, batcher, asked)
    first: CompletionPart = begun[0]
    if not isinstance(first, GeneratePiece):
        await parts.aclose()
    if isinstance(first, GenerateFailure):
        raise failure_of(first)
    headers = {WEIGHT_VERSION_HEADER: str(first.weight_version)}
    if asked.request.stream:
        return StreamingResponse(_Events(asked).of(begun, parts), media_type="text/event-stream", headers=headers)
    assert isinstance(first, Completion)
    return json_answer(_whole(first, asked), headers=headers)


async def _begun(
    batcher: Batcher[CompletionRequest, CompletionPart], asked: Asked
) -> tuple[AsyncGenerator[list[CompletionPart]], list[CompletionPart]]:
    """The parts of the answer, and those that came first."""
    parts = batcher.stream(asked.request, max(0.0, asked.request.remaining_s(time.time())))
    try:
        return parts, await anext(parts)
    except Exception as error:
        raise translated(error, asked.request_id) from error


def _whole(completion: Completion, asked: Asked) -> Json:
    return {
        **_head(asked, asked.form.kind),
        "choices": [_choice(asked.form.whole(completion), completion.finish_reason)],
        "usage": _usage(completion),
        "weight_version": completion.weight_version,
    }


class _Events:
    def __init__(self, asked: Asked) -> None:
        self._form = asked.form
        self._head = _head(asked, asked.form.event_kind)
        self._request_id = asked.request_id
        self._usage = asked.usage

    async def of(
        self, begun: Sequence[CompletionPart], parts: AsyncGenerator[list[CompletionPart]]
    ) -> AsyncGenerator[bytes]:
        first = self._form.first()
        before = b"" if first is None else self._event([_choice(first, None)])
        try:
            yield before + b"".join(map(self._part, begun))
            async for some in parts:
                yield b"".join(map(self._part, some))
        except Exception as error:
            yield failure_event(error, self._request_id)
        finally:
            await parts.aclose()  # whoever stops listening leaves

    def _part(self, part: CompletionPart) -> bytes:
        match part:
            case GeneratePiece():
                return self._event([_choice(self._form.piece(part.text), None)])
            case GenerateFailure():
                return failure_event(failure_of(part), self._request_id)
        end = self._event([_choice(self._form.piece(""), part.finish_reason)])
        usage = self._event([], _usage(part)) if self._usage else b""
        return end + usage + END

    def _event(self, choices: list[Json], usage: dict[str, int] | None = None) -> bytes:
        counted = {"usage": usage} if self._usage else {}
        return b"data: " + orjson.dumps({**self._head, "choices": choices, **counted}) + b"\n\n"


def _head(asked: Asked, kind: str) -> Json:
    created = int(time.time())
    return {"id": f"{asked.form.prefix}-{asked.request_id}", "object": kind, "created": created, "model": asked.model}


def _choice(content: Json, finish_reason: str | None) -> Json:
    return {"index": 0, **content, "logprobs": None, "finish_reason": finish_reason}


def _usage(completion: Completion) -> dict[str, int]:
    prompt, sampled = completion.prompt_tokens, completion.completion_tokens
    return {"prompt_tokens": prompt, "completion_tokens": sampled, "total_tokens": prompt + sampled}
