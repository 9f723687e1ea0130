"""`Chat` through litellm: one request, one answer of a model behind an API, within the deadline and the limits."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from configs.policies import ProviderPolicy
from deployments.access.limiter import CallLimits, Usage
from deployments.engines.provider.calls import Asked, Prepared, ProviderCalls, used_tokens
from deployments.engines.provider.failures import SHOWN_CHARACTERS
from deployments.engines.provider.images import EncodedImages
from deployments.engines.provider.messages import estimated_tokens, messages_of, response_format
from deployments.engines.provider.openai import OpenAIChat
from deployments.engines.provider.redaction import Redaction
from deployments.errors import PolicyError
from deployments.protocol.act import ChatRequest, ChatResult


class ProviderEngine:
    """Asks one model for the next turn of conversations. `openai`: the same model behind OpenAI's own route; both share
    places and limits."""

    def __init__(
        self,
        policy: ProviderPolicy,
        litellm: Any,
        environment: Mapping[str, str],
        limits: CallLimits | None = None,
        redaction: Redaction | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._calls = ProviderCalls(policy, litellm, environment, limits, redaction, clock)
        self.policy = policy
        self.model = self._calls.model
        self.images = EncodedImages(int(policy.image_cache_gib * 2**30))
        self.openai = OpenAIChat(policy.name, self._calls, clock)
        self._takes_schema = self._can_enforce_schemas(litellm)

    async def __call__(self, request: ChatRequest) -> ChatResult:
        """The model's answer; `weight_version` is 0: nobody knows the weights behind an API. Raises PolicyError."""

        def prepare() -> Prepared:
            return Prepared(self._fields(request), estimated_tokens(request))

        async with self._calls.call(Asked(request.request_id, request.deadline_unix_s, prepare, self._text)) as begun:
            return ChatResult(begun.answer, 0, queue_ms=begun.queue_ms, infer_ms=begun.infer_ms)

    def _fields(self, request: ChatRequest) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "messages": messages_of(request.turns, self.images),
            "temperature": request.temperature,
            "max_tokens": request.max_tokens,
            "drop_params": True,  # a seed, where a provider takes none
        }
        if request.seed is not None:
            fields["seed"] = request.seed
        if request.json_schema is not None and self._takes_schema:
            fields["response_format"] = response_format(request.json_schema)
        return fields

    async def _text(self, response: Any, usage: Usage) -> str:
        """What the model said. Raises PolicyError where it said nothing."""
        usage.tokens = used_tokens(response)
        provider, choice = self.model.provider, response.choices[0]
        refusal = (getattr(choice.message, "provider_specific_fields", None) or {}).get("refusal")
        if refusal or choice.finish_reason == "content_filter":
            said = self._calls.clean(str(refusal or "content filter"))[:SHOWN_CHARACTERS]
            raise PolicyError("refused", f"the provider {provider} refused to answer: {said}")
        if not choice.message.content:
            if choice.finish_reason == "length":
                raise PolicyError("too_large", "the model used up max_tokens before it answered: ask for more")
            raise PolicyError("engine_failed", f"the provider {provider} answered nothing")
        return str(choice.message.content)

    def _can_enforce_schemas(self, litellm: Any) -> bool:
        if self.policy.structured != "auto":
            return self.policy.structured == "on"
        return self.policy.api_base is not None or bool(litellm.supports_response_schema(self.model.name))
