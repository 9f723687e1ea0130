"""What a laptop or a robot imports: HTTP clients of the application. No ray, torch or vllm."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any, Self

import httpx
from tenacity import AsyncRetrying, RetryCallState, Retrying, retry_if_exception, stop_after_attempt
from tenacity.wait import wait_random_exponential

from deployments.errors import TABLE, PolicyError

MAX_WAIT_S = 10.0  # whatever Retry-After asks for: a client's call stays bounded
_jitter = wait_random_exponential(multiplier=0.1, max=2.0)


class PolicyClient:
    """Synchronous client. A retry carries the same request id; only what the server calls retryable is tried again.

    Raises PolicyError with the server's kind, or "unavailable" when it cannot be reached.
    """

    def __init__(
        self,
        base_url: str,
        timeout_s: float = 60.0,
        retries: int = 3,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._http = httpx.Client(base_url=base_url, timeout=timeout_s, transport=transport)
        self._retries = retries

    def health(self) -> dict[str, Any]:
        return self._call("GET", "/health")

    def models(self) -> list[str]:
        return [model["id"] for model in self._call("GET", "/v1/models")["data"]]

    def complete(
        self,
        prompt: str | Sequence[int] | None = None,
        *,
        token_ids: Sequence[int] | None = None,
        model: str | None = None,
        **sampling: Any,
    ) -> dict[str, Any]:
        """One completion in OpenAI's format, with the `weight_version` that answered. Either text or token ids."""
        return self._call("POST", "/v1/completions", completion_body(prompt, token_ids, model, sampling))

    def chat(self, messages: Sequence[dict[str, Any]], model: str | None = None, **sampling: Any) -> dict[str, Any]:
        return self._call("POST", "/v1/chat/completions", chat_body(messages, model, sampling))

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        request_id = uuid.uuid4().hex
        for attempt in Retrying(**_policy(self._retries)):
            with attempt:
                try:
                    answer = self._http.request(method, path, json=body, headers={"x-request-id": request_id})
                except httpx.TransportError as error:
                    raise _unreached(error, f"{self._http.base_url}{path}", request_id) from error
                return _parsed(answer, request_id)
        raise AssertionError("reraise=True: the last attempt returns or raises")


class AsyncPolicyClient:
    """The same for asyncio; the calls of one client share its connections."""

    def __init__(
        self,
        base_url: str,
        timeout_s: float = 60.0,
        retries: int = 3,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._http = httpx.AsyncClient(base_url=base_url, timeout=timeout_s, transport=transport)
        self._retries = retries

    async def health(self) -> dict[str, Any]:
        return await self._call("GET", "/health")

    async def models(self) -> list[str]:
        return [model["id"] for model in (await self._call("GET", "/v1/models"))["data"]]

    async def complete(
        self,
        prompt: str | Sequence[int] | None = None,
        *,
        token_ids: Sequence[int] | None = None,
        model: str | None = None,
        **sampling: Any,
    ) -> dict[str, Any]:
        return await self._call("POST", "/v1/completions", completion_body(prompt, token_ids, model, sampling))

    async def chat(
        self, messages: Sequence[dict[str, Any]], model: str | None = None, **sampling: Any
    ) -> dict[str, Any]:
        return await self._call("POST", "/v1/chat/completions", chat_body(messages, model, sampling))

    async def close(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        request_id = uuid.uuid4().hex
        async for attempt in AsyncRetrying(**_policy(self._retries)):
            with attempt:
                try:
                    answer = await self._http.request(method, path, json=body, headers={"x-request-id": request_id})
                except httpx.TransportError as error:
                    raise _unreached(error, f"{self._http.base_url}{path}", request_id) from error
                return _parsed(answer, request_id)
        raise AssertionError("reraise=True: the last attempt returns or raises")


def completion_body(
    prompt: str | Sequence[int] | None, token_ids: Sequence[int] | None, model: str | None, sampling: dict[str, Any]
) -> dict[str, Any]:
    if (prompt is None) == (token_ids is None):
        raise ValueError("give either prompt or token_ids")
    given = prompt if token_ids is None else token_ids
    named = {} if model is None else {"model": model}
    return {"prompt": given if isinstance(given, str) else list(given or ()), **named, **sampling}


def chat_body(messages: Sequence[dict[str, Any]], model: str | None, sampling: dict[str, Any]) -> dict[str, Any]:
    named = {} if model is None else {"model": model}
    return {"messages": list(messages), **named, **sampling}


def _policy(retries: int) -> dict[str, Any]:
    return {
        "stop": stop_after_attempt(retries + 1),
        "wait": _wait_s,
        "retry": retry_if_exception(lambda error: isinstance(error, PolicyError) and error.retryable),
        "reraise": True,
    }


def _wait_s(state: RetryCallState) -> float:
    """What the server asked for plus jitter: clients that were refused together do not come back together."""
    error = state.outcome.exception() if state.outcome is not None else None
    asked_s = error.retry_after_s or 0.0 if isinstance(error, PolicyError) else 0.0
    return min(asked_s + _jitter(state), MAX_WAIT_S)


def _unreached(error: httpx.TransportError, url: str, request_id: str) -> PolicyError:
    if isinstance(error, httpx.TimeoutException):
        return PolicyError("deadline_exceeded", f"no answer from {url} in time", request_id)
    return PolicyError("unavailable", f"{url} cannot be reached: {error}", request_id)


# Statuses that several kinds share, or that only stand between client and server (proxies, vLLM's own routes).
KIND_OF_STATUS = {entry.http_status: kind for kind, entry in TABLE.items()} | {
    400: "invalid_request", 422: "invalid_request", 502: "unavailable", 503: "unavailable", 504: "deadline_exceeded",
}  # fmt: skip


def _parsed(answer: httpx.Response, request_id: str) -> dict[str, Any]:
    try:
        body = answer.json()
    except ValueError:
        body = None
    if answer.is_success and isinstance(body, dict):
        return body
    fields: dict[str, Any] = body if isinstance(body, dict) else {}
    if answer.is_success:
        raise PolicyError("internal", f"the answer is no JSON object: {answer.text[:200]!r}", request_id)
    kind = fields.get("kind")
    if kind not in TABLE:
        fallback = "internal" if answer.status_code >= 500 else "invalid_request"
        kind = KIND_OF_STATUS.get(answer.status_code, fallback)
    inner = fields.get("error")
    message = fields.get("message") or (inner.get("message") if isinstance(inner, dict) else inner)
    asked = answer.headers.get("retry-after", "")
    retry_after_s = float(asked) if asked.replace(".", "", 1).isdigit() else None  # the date form is not used here
    raise PolicyError(kind, str(message or answer.text[:200] or answer.reason_phrase), request_id, retry_after_s)
