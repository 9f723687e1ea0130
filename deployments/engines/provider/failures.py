"""What a provider's failure means to our caller. No message holds a key; the provider's own words are cut short."""

from __future__ import annotations

import re
from collections.abc import Callable
from email.utils import parsedate_to_datetime

from configs.providers import key_variable
from deployments.errors import PolicyError

SHOWN_CHARACTERS = 300
# OpenAI's error code -> kind. litellm gives several of these the same type.
CODES = {"context_length_exceeded": "too_large", "content_policy_violation": "refused", "content_filter": "refused"}
# Names of litellm's exceptions, and of openai's where they are its bases -> kind.
KINDS = {
    "ContextWindowExceededError": "too_large",
    "ContentPolicyViolationError": "refused",
    "RateLimitError": "overloaded",
    "Timeout": "deadline_exceeded",
    "APITimeoutError": "deadline_exceeded",
    "BadRequestError": "invalid_request",
    "UnprocessableEntityError": "invalid_request",
}
# Status -> what the operator of this server must mend, and the caller cannot.
OURS = {
    401: "does not take this server's API key: check {variable}",
    402: "wants to be paid: check the account of {variable}",
    403: "does not let this server use the model: check {variable} and its account",
    404: "knows no model {model!r}: check the policy's model and VLM_MODEL",
}
# «litellm.APIError: OpenAIException - »
LIBRARYS_NAMES = re.compile(r"^(?:[\w.]*(?:Error|Exception|Timeout)(?::| -) )+")


def policy_error(
    error: Exception, provider: str, model: str, clean: Callable[[str], str], now_unix_s: float
) -> PolicyError:
    """The failure of a call. `clean` cuts secrets out of a text; `now_unix_s`: wall time, for a date in Retry-After."""
    status = getattr(error, "status_code", None)
    if status in OURS:
        problem = OURS[status].format(variable=key_variable(provider), model=model)
        return PolicyError("internal", f"the provider {provider} {problem}")
    named = next((base.__name__ for base in type(error).__mro__ if base.__name__ in KINDS), "")
    kind = CODES.get(str(getattr(error, "code", "")), KINDS.get(named, "unavailable"))
    said = LIBRARYS_NAMES.sub("", clean(str(error)))[:SHOWN_CHARACTERS]
    return PolicyError(kind, f"the provider {provider}: {said}", retry_after_s=_retry_after_s(error, now_unix_s))


def _retry_after_s(error: Exception, now_unix_s: float) -> float | None:
    """What the provider's Retry-After says, in seconds; None where there is none, or nobody can read it."""
    response = getattr(error, "response", None)
    headers = getattr(error, "litellm_response_headers", None) or getattr(response, "headers", {})
    text = str(headers.get("retry-after") or "").strip()
    if re.fullmatch(r"\d{1,6}(\.\d+)?", text):
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now_unix_s)
    except ValueError:
        return None
