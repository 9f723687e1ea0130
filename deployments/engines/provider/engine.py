"""`Chat` through litellm: one request, one answer of a model behind an API, within the deadline and the limits."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_random_exponential

from configs.base import ConfigError
from configs.policies import ProviderPolicy
from configs.providers import key_variable
from deployments.access.limiter import CallLimits, Usage
from deployments.engines.provider.failures import SHOWN_CHARACTERS, policy_error
from deployments.engines.provider.messages import Message, estimated_tokens, messages_of, response_format
from deployments.engines.provider.redaction import Redaction
from deployments.errors import PolicyError
from deployments.protocol.act import ChatRequest, ChatResult

logger = logging.getLogger("ray.serve")

NO_KEY = "none"  # for a server at `api_base` that wants no key: litellm's clients want one
REFUSED_S = 1.0  # where a provider refuses a call and does not say for how long


@dataclass(frozen=True, slots=True)
class Model:
    """A model by litellm's name, and who runs it."""

    name: str
    provider: str

    @property
    def bare_name(self) -> str:
        """As the provider calls it, and as rate_limits.yaml does."""
        return self.name.removeprefix(f"{self.provider}/")


def model_of(policy: ProviderPolicy, litellm: Any) -> Model:
    """Raises ConfigError for a model whose provider litellm does not know."""
    try:
        _, provider, _, _ = litellm.get_llm_provider(policy.model, api_base=policy.api_base)
    except Exception as error:  # litellm's own, of several types
        raise ConfigError(
            f"policy {policy.name!r}: no provider is known for the model {policy.model!r}: write PROVIDER/NAME, e.g. "
            f"openai/{policy.model}"
        ) from error
    return Model(policy.model, str(provider))


class ProviderEngine:
    """Calls one model. `limits`: what holds its calls back over all replicas, None: nothing does.

    At most `policy.concurrency` calls are under way here; the others wait their turn, within their deadline. A call
    that fails for a passing reason is made again, `policy.retries` times at most, and never past the deadline. A caller
    that leaves ends the call.
    """

    def __init__(
        self,
        policy: ProviderPolicy,
        litellm: Any,
        environment: Mapping[str, str],
        limits: CallLimits | None = None,
        redaction: Redaction | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.policy = policy
        self.model = model_of(policy, litellm)
        self._litellm = litellm
        self._key = environment.get(key_variable(self.model.provider)) or (NO_KEY if policy.api_base else None)
        self._limits = limits
        self._clean = redaction or Redaction([self._key] if self._key else [])
        self._clock = clock
        self._places = asyncio.Semaphore(policy.concurrency)
        self._takes_schema = self._can_enforce_schemas()

    async def __call__(self, request: ChatRequest) -> ChatResult:
        """The model's answer; `weight_version` is 0: nobody knows the weights behind an API. Raises PolicyError."""
        asked_s, placed = self._clock(), False
        try:
            async with asyncio.timeout(max(0.0, request.deadline_unix_s - asked_s)):
                async with self._places:
                    placed = True
                    messages = await asyncio.to_thread(messages_of, request.turns)
                    return await self._answered(request, messages, asked_s)
        except TimeoutError as error:
            if placed:
                message = f"the provider {self.model.provider} did not answer within the deadline"
                raise PolicyError("deadline_exceeded", message, request.request_id) from error
            message = (
                f"{self.policy.concurrency} calls of {self.model.name} were under way all the time: try again later"
            )
            raise PolicyError("overloaded", message, request.request_id) from error
        except PolicyError as error:
            raise error.of_request(request.request_id) from None

    async def _answered(self, request: ChatRequest, messages: list[Message], asked_s: float) -> ChatResult:
        """The answer to the first try that does not fail for a passing reason."""

        def given_up(state: RetryCallState) -> bool:
            late = self._clock() + state.upcoming_sleep >= request.deadline_unix_s
            return late or state.attempt_number > self.policy.retries

        tries = AsyncRetrying(
            stop=given_up,
            wait=_wait_s,
            retry=retry_if_exception(lambda error: isinstance(error, PolicyError) and error.retryable),
            reraise=True,
        )
        async for attempt in tries:
            with attempt:
                return await self._once(request, messages, asked_s)
        raise AssertionError("tenacity returns or raises")

    async def _once(self, request: ChatRequest, messages: list[Message], asked_s: float) -> ChatResult:
        async with self._permission(request) as usage:
            begun_s = self._clock()
            response = await self._call(request, messages)
            usage.tokens = _used_tokens(response)
            text = _text(response, self.model.provider, self._clean)
            return ChatResult(text, 0, queue_ms=1e3 * (begun_s - asked_s), infer_ms=1e3 * (self._clock() - begun_s))

    def _permission(self, request: ChatRequest) -> Any:
        if self._limits is None:
            return nullcontext(Usage())
        return self._limits.permission(estimated_tokens(request), request.deadline_unix_s, self.policy.timeout_s)

    async def _call(self, request: ChatRequest, messages: list[Message]) -> Any:
        """One call of the API. litellm's exceptions end here: they hold the request with its key."""
        fields: dict[str, Any] = {"seed": request.seed} if request.seed is not None else {}
        if request.json_schema is not None and self._takes_schema:
            fields["response_format"] = response_format(request.json_schema)
        try:
            async with asyncio.timeout(self.policy.timeout_s):
                return await self._litellm.acompletion(
                    model=self.model.name,
                    messages=messages,
                    temperature=request.temperature,
                    max_tokens=request.max_tokens,
                    api_base=self.policy.api_base,
                    api_key=self._key,
                    timeout=self.policy.timeout_s,
                    max_retries=0,  # of the client below litellm: the tries are counted here
                    num_retries=0,
                    **fields,
                )
        except TimeoutError:
            message = f"the provider {self.model.provider} did not answer within {self.policy.timeout_s:g} s"
            raise PolicyError("deadline_exceeded", message) from None
        except Exception as error:
            failure = policy_error(error, self.model.provider, self.model.name, self._clean, self._clock())
        if failure.kind == "overloaded" and self._limits is not None:
            self._limits.refused_by_provider(failure.retry_after_s or REFUSED_S)
        logger.warning("call of %s failed: %s", self.model.name, failure)
        raise failure

    def _can_enforce_schemas(self) -> bool:
        if self.policy.structured != "auto":
            return self.policy.structured == "on"
        return self.policy.api_base is not None or bool(self._litellm.supports_response_schema(self.model.name))


def _wait_s(state: RetryCallState) -> float:
    """As long as the provider asked for, or ever longer with jitter."""
    error = state.outcome.exception() if state.outcome is not None else None
    named_s = error.retry_after_s if isinstance(error, PolicyError) else None
    return float(wait_random_exponential(multiplier=0.25, max=4.0)(state)) if named_s is None else named_s


def _used_tokens(response: Any) -> int | None:
    used = getattr(getattr(response, "usage", None), "total_tokens", None)
    return int(used) if used else None


def _text(response: Any, provider: str, clean: Redaction) -> str:
    """What the model said. Raises PolicyError where it said nothing."""
    if response is None:  # litellm's answer to 422, once it has left out fields and tried again
        raise PolicyError("invalid_request", f"the provider {provider} does not take this request (422)")
    choice = response.choices[0]
    refusal = (getattr(choice.message, "provider_specific_fields", None) or {}).get("refusal")
    if refusal or choice.finish_reason == "content_filter":
        said = clean(str(refusal or "content filter"))[:SHOWN_CHARACTERS]
        raise PolicyError("refused", f"the provider {provider} refused to answer: {said}")
    if not choice.message.content:
        if choice.finish_reason == "length":
            raise PolicyError("too_large", "the model used up max_tokens before it answered: ask for more")
        raise PolicyError("engine_failed", f"the provider {provider} answered nothing")
    return str(choice.message.content)
