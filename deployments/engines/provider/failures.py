"""What a provider's failure means to our caller. No message holds a key; the provider's own text is short and cleaned."""

from __future__ import annotations

import re
from collections.abc import Callable
from email.utils import parsedate_to_datetime

from configs.providers import key_variable
from deployments.errors import PolicyError

SHOWN_CHARACTERS = 300
# Names of litellm's exceptions, and of openai's where they are its bases.
KINDS = {
    "AuthenticationError": "internal",
    "PermissionDeniedError": "internal",
    "PaymentRequiredError": "internal",
    "NotFoundError": "internal",
    "ContextWindowExceededError": "too_large",
    "ContentPolicyViolationError": "refused",
    "RateLimitError": "overloaded",
    "Timeout": "deadline_exceeded",
    "APITimeoutError": "deadline_exceeded",
    "ServiceUnavailableError": "unavailable",
    "BadGatewayError": "unavailable",
    "InternalServerError": "unavailable",
    "APIConnectionError": "unavailable",
    "BadRequestError": "invalid_request",
    "UnprocessableEntityError": "invalid_request",
    "APIStatusError": "unavailable",
    "APIError": "unavailable",
}
# What the operator of this server must mend, and the caller cannot.
OURS = {
    "AuthenticationError": "does not take this server's API key: check {variable}",
    "PermissionDeniedError": "does not let this server's API key use the model: check {variable} and its account",
    "PaymentRequiredError": "wants to be paid: check the account of {variable}",
    "NotFoundError": "knows no model {model!r}: check the policy's model and VLM_MODEL",
}


def policy_error(
    error: Exception, provider: str, model: str, clean: Callable[[str], str], now_unix_s: float
) -> PolicyError:
    """The failure of a call. `clean` cuts secrets out of a text; `now_unix_s`: wall time, for a date in Retry-After."""
    name = next((base.__name__ for base in type(error).__mro__ if base.__name__ in KINDS), "")
    if name in OURS:
        problem = OURS[name].format(variable=key_variable(provider), model=model)
        return PolicyError(KINDS[name], f"the provider {provider} {problem}")
    said = clean(re.sub(r"^(litellm\.\w+: )?(\w+ - )?", "", str(error)).strip())[:SHOWN_CHARACTERS]
    kind = KINDS.get(name, "unavailable")
    return PolicyError(kind, f"the provider {provider}: {said}", retry_after_s=_retry_after_s(error, now_unix_s))


def _retry_after_s(error: Exception, now_unix_s: float) -> float | None:
    """What the provider's Retry-After says, in seconds; None where there is none, or nobody can read it."""
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    text = str(headers.get("retry-after") or "").strip()
    if re.fullmatch(r"\d{1,6}(\.\d+)?", text):
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now_unix_s)
    except ValueError:
        return None
