"""What a failure means is read from its type; the real ones, over HTTP, are in test_engine.py."""

from __future__ import annotations

from email.utils import formatdate

import httpx
import pytest

from deployments.engines.provider.failures import policy_error

NOW_S = 1_700_000_000.0


class RateLimitError(Exception):
    def __init__(self, retry_after: str) -> None:
        super().__init__("litellm.RateLimitError: OpenAIException - slow down")
        headers = {"retry-after": retry_after} if retry_after else {}
        self.response = httpx.Response(429, headers=headers)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("17", 17.0),
        ("0.5", 0.5),
        (formatdate(NOW_S + 30, usegmt=True), 30.0),
        (formatdate(NOW_S - 30, usegmt=True), 0.0),
        ("soon", None),
        ("", None),
        ("-5", None),
        ("9" * 30, None),
    ],
)
def test_retry_after_is_read_in_seconds_or_as_a_date(header: str, seconds: float | None) -> None:
    found = policy_error(RateLimitError(header), "openai", "m", str, NOW_S)
    assert (found.kind, found.retry_after_s) == ("overloaded", seconds)


def test_the_message_is_the_providers_own_without_the_librarys_names() -> None:
    assert policy_error(RateLimitError(""), "openai", "m", str, NOW_S).message == "the provider openai: slow down"


def test_a_message_is_cleaned_before_it_is_cut() -> None:
    """Cut first, half a key would be left at the end."""

    class BadRequestError(Exception):
        pass

    error = BadRequestError("x" * 295 + "secret-key")
    found = policy_error(error, "openai", "m", lambda text: text.replace("secret-key", "[redacted]"), NOW_S)

    assert "secr" not in found.message


def test_an_unknown_failure_may_pass() -> None:
    assert policy_error(ValueError("?"), "openai", "m", str, NOW_S).kind == "unavailable"
