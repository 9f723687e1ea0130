"""Which requests of the OpenAI API take the short way to an engine: many in one call, without vLLM's HTTP layer."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

from deployments.protocol.act import ChatTurn
from deployments.protocol.completion import CompletionRequest
from deployments.protocol.generate import Sampling
from deployments.transports.http.requests import DEFAULT_MAX_TOKENS, ChatBody, CompletionBody, SampledBody

# A request with other fields than these needs something of vLLM's HTTP layer.
SAMPLING_FIELDS = {"max_tokens", "temperature", "top_p", "seed", "n", "ignore_eos"}
COMPLETION_FIELDS = {"model", "user", "prompt", "stream", "stream_options"} | SAMPLING_FIELDS
CHAT_FIELDS = {"model", "user", "messages", "stream", "stream_options", "max_completion_tokens"} | SAMPLING_FIELDS
ROLES = ("system", "user", "assistant")


@dataclass(frozen=True, slots=True)
class Terms:
    """What a request says beside its body. `deadline_s` from now, which is `now_unix_s`."""

    request_id: str
    min_weight_version: int
    deadline_s: float
    now_unix_s: float


def plain(body: SampledBody, changes: dict[str, Any], terms: Terms) -> CompletionRequest | None:
    """The request when it takes the short way, None when vLLM's own route must answer it.

    `changes`: the fields that bound its tokens where it does not (`within_bound`). The request gets an id of its own: a
    client may use the same one twice.
    """
    prompt: Any = None
    max_tokens, named = 0, True
    match body:
        case CompletionBody() if body.model_fields_set <= COMPLETION_FIELDS and body.one_prompt:
            prompt = body.prompt
            max_tokens = DEFAULT_MAX_TOKENS if body.max_tokens is None else body.max_tokens
        case ChatBody() if body.model_fields_set <= CHAT_FIELDS:  # not a batch: its messages are a list of lists
            prompt = _turns((body.model_extra or {}).get("messages"))
            named = body.tokens_asked() is not None
            bounds = (body.max_completion_tokens, body.max_tokens, changes.get("max_completion_tokens"))
            max_tokens = next((value for value in bounds if value is not None), 0)
    if not prompt or not max_tokens or body.n not in (1, None) or not _plain_stream(body):
        return None
    sampling = Sampling(
        temperature=1.0 if body.temperature is None else body.temperature,
        max_tokens=max_tokens,
        top_p=1.0 if body.top_p is None else body.top_p,
        seed=body.seed,
        ignore_eos=body.ignore_eos,
        logprobs=False,
    )
    return CompletionRequest(
        f"{terms.request_id}-{uuid.uuid4().hex[:8]}",
        prompt,
        sampling,
        bool(body.stream),
        not named,
        terms.min_weight_version,
        terms.deadline_s,
        deadline_unix_s=terms.now_unix_s + terms.deadline_s,
    )


def wants_usage(body: SampledBody) -> bool:
    """Whether the last event of a stream is to count the tokens."""
    options = (body.model_extra or {}).get("stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True


def _plain_stream(body: SampledBody) -> bool:
    options = (body.model_extra or {}).get("stream_options")
    if options is None:
        return True
    known = isinstance(options, dict) and set(options) <= {"include_usage"}
    return bool(body.stream) and known and isinstance(options.get("include_usage", False), bool)


def _turns(messages: Any) -> tuple[ChatTurn, ...] | None:
    """A conversation of plain text; None for any other, and for what is none."""
    if not isinstance(messages, list):
        return None
    turns = []
    for message in messages:
        if not isinstance(message, dict) or message.keys() != {"role", "content"} or message["role"] not in ROLES:
            return None
        if not isinstance(message["content"], str):
            return None
        turns.append(ChatTurn(message["role"], message["content"]))
    return tuple(turns)
