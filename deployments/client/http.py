"""What a laptop or a robot imports: an HTTP client of the application. No ray, torch or vllm."""

from __future__ import annotations

import uuid
from typing import Any, Self

import httpx

from deployments.client.retrying import retrying
from deployments.errors import TABLE, PolicyError, kind_of_status


class PolicyClient:
    """Synchronous client. A retry carries the same request id; only what the server calls retryable is tried again.

    Raises PolicyError with the server's kind, or "unavailable" when it cannot be reached.
    """

    def __init__(self, base_url: str, timeout_s: float = 60.0, retries: int = 3) -> None:
        self._http = httpx.Client(base_url=base_url, timeout=timeout_s, headers={"x-timeout-s": f"{timeout_s:g}"})
        self._retries = retries
        self._deadline_s = timeout_s * (retries + 1)

    def health(self) -> dict[str, Any]:
        return self._call("GET", "/health")

    def models(self) -> list[str]:
        return [model["id"] for model in self._call("GET", "/v1/models")["data"]]

    def complete(self, prompt: str | list[int], model: str | None = None, **sampling: Any) -> dict[str, Any]:
        """One completion in OpenAI's format, with the `weight_version` that answered."""
        return self._call("POST", "/v1/completions", {"model": model, "prompt": prompt, **sampling})

    def chat(self, messages: list[dict[str, Any]], model: str | None = None, **sampling: Any) -> dict[str, Any]:
        return self._call("POST", "/v1/chat/completions", {"model": model, "messages": messages, **sampling})

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        request_id = uuid.uuid4().hex
        again = retrying(self._retries, self._deadline_s)
        answer: dict[str, Any] = again(answered, self._http, method, path, body, request_id)
        return answer


def answered(
    http: httpx.Client, method: str, path: str, body: dict[str, Any] | None, request_id: str
) -> dict[str, Any]:
    """The JSON of one try. Raises PolicyError with the server's kind, "deadline_exceeded", or "unavailable" when it
    cannot be reached."""
    try:
        answer = http.request(method, path, json=body, headers={"x-request-id": request_id})
    except httpx.TimeoutException as error:
        raise PolicyError("deadline_exceeded", f"no answer from {http.base_url}{path}", request_id) from error
    except httpx.TransportError as error:
        raise PolicyError("unavailable", f"{http.base_url} cannot be reached: {error}", request_id) from error
    if answer.is_success:
        parsed: dict[str, Any] = answer.json()
        return parsed
    raise failure_of(answer, request_id)


def failure_of(answer: httpx.Response, request_id: str) -> PolicyError:
    """What an answer with a status of 400 or more means, whoever gave it."""
    try:
        body = answer.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):  # not ours: a proxy's page, or any other server's
        body = {}
    kind = body.get("kind")
    if kind not in TABLE:
        kind = kind_of_status(answer.status_code)
    message = str(body.get("message") or body.get("error") or answer.text[:200])
    return PolicyError(kind, message, request_id, _seconds(answer.headers.get("retry-after")))


def _seconds(retry_after: str | None) -> float | None:
    """None where there is no such header, or a date."""
    try:
        return float(retry_after) if retry_after else None
    except ValueError:
        return None
