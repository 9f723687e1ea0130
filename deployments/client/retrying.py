"""How all clients try again: only what the server calls retryable, a bounded number of times, with jitter, in time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    wait_random_exponential,
)

from deployments.errors import PolicyError

_JITTER = wait_random_exponential(multiplier=0.1, max=2.0)


def _wait_s(state: RetryCallState) -> float:
    """Jitter, but at least what the server asked for."""
    error = state.outcome.exception() if state.outcome is not None else None
    asked_s = error.retry_after_s if isinstance(error, PolicyError) else None
    return max(_JITTER(state), asked_s or 0.0)


def _stop(retries: int, deadline_s: float) -> Callable[[RetryCallState], bool]:
    by_number = stop_after_attempt(retries + 1)

    def stop(state: RetryCallState) -> bool:
        late = (state.seconds_since_start or 0.0) + state.upcoming_sleep >= deadline_s
        return late or bool(by_number(state))

    return stop


def _settings(retries: int, deadline_s: float) -> dict[str, Any]:
    return {
        "stop": _stop(retries, deadline_s),
        "wait": _wait_s,
        "retry": retry_if_exception(lambda error: isinstance(error, PolicyError) and error.retryable),
        "reraise": True,
    }


def retrying(retries: int, deadline_s: float) -> Retrying:
    """`retrying(...)(function, *args)` calls it until it answers. Raises what the last try raised."""
    return Retrying(**_settings(retries, deadline_s))


def async_retrying(retries: int, deadline_s: float) -> AsyncRetrying:
    """`await async_retrying(...)(function, *args)`, as `retrying`."""
    return AsyncRetrying(**_settings(retries, deadline_s))
