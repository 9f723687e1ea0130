"""A request whose replica died goes to another one: many clients of robots and games try once, and need not notice."""

from __future__ import annotations

from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from deployments.errors import PolicyError

RESENDS = 1  # a request that itself kills its replica must not go through all of them
_WAIT = wait_random_exponential(multiplier=0.05, max=0.5)  # seconds


def resending() -> AsyncRetrying:
    """`await resending()(call, *args)` calls again, once, when the call is lost: PolicyError("unavailable"). Only for
    calls that fail so because of their replica, not for what a replica answers. Raises what the last call raised."""
    return AsyncRetrying(
        stop=stop_after_attempt(1 + RESENDS), wait=_WAIT, retry=retry_if_exception(_is_lost), reraise=True
    )


def _is_lost(error: BaseException) -> bool:
    return isinstance(error, PolicyError) and error.kind == "unavailable"
