"""Calls of one model behind an API through litellm: within places, limits, tries and deadlines."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_random_exponential

from configs.base import ConfigError
from configs.policies import ProviderPolicy
from configs.providers import key_variable
from deployments.access.limiter import CallLimits, Usage
from deployments.engines.provider.failures import policy_error
from deployments.engines.provider.redaction import Redaction
from deployments.errors import PolicyError

logger = logging.getLogger("ray.serve")

T = TypeVar("T")

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


@dataclass(frozen=True, slots=True)
class Prepared:
    """`fields`: arguments of litellm's `acompletion` besides model, key and address. `tokens`: what the call is
    expected to use, prompt and answers."""

    fields: Mapping[str, Any]
    tokens: int


@dataclass(frozen=True, slots=True)
class Asked(Generic[T]):
    """A call to be made. `prepare` runs in a thread, once there is a place for the call. `read`: what is made of the
    API's response; a PolicyError that it raises is a failure of the call."""

    request_id: str
    deadline_unix_s: float
    prepare: Callable[[], Prepared]
    read: Callable[[Any, Usage], Awaitable[T]]


@dataclass(frozen=True, slots=True)
class Begun(Generic[T]):
    """What `Asked.read` made of the response. `ends_unix_s`: when a response that is still coming must have come."""

    answer: T
    usage: Usage
    ends_unix_s: float
    queue_ms: float
    infer_ms: float


class ProviderCalls:
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
        self.model = model_of(policy, litellm)
        self._policy = policy
        self._litellm = litellm
        self._key = environment.get(key_variable(self.model.provider)) or (NO_KEY if policy.api_base else None)
        self._limits = limits
        self.clean = redaction or Redaction([self._key] if self._key else [])
        self._clock = clock
        self._places = asyncio.Semaphore(policy.concurrency)

    @asynccontextmanager
    async def call(self, asked: Asked[T]) -> AsyncIterator[Begun[T]]:
        """The first try that does not fail for a passing reason. Its place and its permission are held until the end of
        the block, in which a streamed response is read. Raises PolicyError."""
        async with AsyncExitStack() as held:
            begun = await self._in_time(asked, held)
            yield begun

    async def translated(self, work: Awaitable[T]) -> T:
        """Awaits litellm. Its exceptions end here, because they hold the request with its key."""
        try:
            return await work
        except TimeoutError:
            raise
        except Exception as error:
            cause = getattr(error, "original_exception", None) or error  # of a stream that broke off
            failure = policy_error(cause, self.model.provider, self.model.name, self.clean, self._clock())
        if failure.kind == "overloaded" and self._limits is not None:
            self._limits.refused_by_provider(failure.retry_after_s or REFUSED_S)
        logger.warning("call of %s failed: %s", self.model.name, failure)
        raise failure

    async def _in_time(self, asked: Asked[T], held: AsyncExitStack) -> Begun[T]:
        arrived_s, placed = self._clock(), False
        try:
            async with asyncio.timeout(max(0.0, asked.deadline_unix_s - arrived_s)):
                await held.enter_async_context(self._places)
                placed = True
                prepared = await asyncio.to_thread(asked.prepare)
                return await self._tried(asked, prepared, arrived_s, held)
        except TimeoutError as error:
            if placed:
                message = f"the provider {self.model.provider} did not answer within the deadline"
                raise PolicyError("deadline_exceeded", message, asked.request_id) from error
            message = (
                f"{self._policy.concurrency} calls of {self.model.name} were under way all the time: try again later"
            )
            raise PolicyError("overloaded", message, asked.request_id) from error
        except PolicyError as error:
            raise error.of_request(asked.request_id) from None

    async def _tried(self, asked: Asked[T], prepared: Prepared, arrived_s: float, held: AsyncExitStack) -> Begun[T]:
        def given_up(state: RetryCallState) -> bool:
            late = self._clock() + state.upcoming_sleep >= asked.deadline_unix_s
            return late or state.attempt_number > self._policy.retries

        tries = AsyncRetrying(
            stop=given_up,
            wait=_wait_s,
            retry=retry_if_exception(lambda error: isinstance(error, PolicyError) and error.retryable),
            reraise=True,
        )
        async for attempt in tries:
            with attempt:
                return await self._once(asked, prepared, arrived_s, held)
        raise AssertionError("tenacity returns or raises")

    async def _once(self, asked: Asked[T], prepared: Prepared, arrived_s: float, held: AsyncExitStack) -> Begun[T]:
        async with AsyncExitStack() as own:
            usage: Usage = await own.enter_async_context(self._permission(asked, prepared.tokens))
            begun_s = self._clock()
            answer = await self._answered(asked, prepared.fields, usage)
            await held.enter_async_context(own.pop_all())
        return Begun(
            answer,
            usage,
            ends_unix_s=min(asked.deadline_unix_s, begun_s + self._policy.timeout_s),
            queue_ms=1e3 * (begun_s - arrived_s),
            infer_ms=1e3 * (self._clock() - begun_s),
        )

    def _permission(self, asked: Asked[T], tokens: int) -> Any:
        if self._limits is None:
            return nullcontext(Usage())
        return self._limits.permission(tokens, asked.deadline_unix_s, self._policy.timeout_s)

    async def _answered(self, asked: Asked[T], fields: Mapping[str, Any], usage: Usage) -> T:
        """One call of the API."""
        try:
            async with asyncio.timeout(self._policy.timeout_s):
                response = await self.translated(
                    self._litellm.acompletion(
                        **fields,
                        model=self.model.name,
                        api_base=self._policy.api_base,
                        api_key=self._key,
                        timeout=self._policy.timeout_s,
                        max_retries=0,  # of the client below litellm: the tries are counted here
                        num_retries=0,
                    )
                )
                return await asked.read(response, usage)
        except TimeoutError:
            message = f"the provider {self.model.provider} did not answer within {self._policy.timeout_s:g} s"
            raise PolicyError("deadline_exceeded", message) from None


def used_tokens(response: Any) -> int | None:
    """What the response says about itself; None where it says nothing."""
    used = getattr(getattr(response, "usage", None), "total_tokens", None)
    return int(used) if used else None


def _wait_s(state: RetryCallState) -> float:
    """As long as the provider asked for, or ever longer with jitter."""
    error = state.outcome.exception() if state.outcome is not None else None
    named_s = error.retry_after_s if isinstance(error, PolicyError) else None
    return float(wait_random_exponential(multiplier=0.25, max=4.0)(state)) if named_s is None else named_s
