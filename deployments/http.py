"""Between HTTP and the ingress: bodies in, JSON answers out, and the one translation of an exception into a status.

A module of its own because Serve pickles the ingress class by value: what it calls must be importable.
"""

from __future__ import annotations

import logging
import time
import uuid
from typing import Any

import orjson
from fastapi.responses import Response
from ray.exceptions import RayError
from ray.serve.exceptions import BackPressureError, RayServeException

from deployments.errors import TABLE, PolicyError

logger = logging.getLogger("ray.serve")

# A completion with only these keys takes the short way (batched, without vLLM's HTTP layer).
PLAIN_KEYS = {"model", "prompt", "max_tokens", "temperature", "top_p", "seed", "stream", "n", "ignore_eos", "user"}


async def awaitable(response: Any) -> Any:
    return await response


def json_answer(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(body), status_code=status, media_type="application/json", headers=headers)


def parse(body: bytes) -> dict[str, Any]:
    try:
        payload = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise PolicyError("invalid_request", f"the body is not valid JSON: {error}") from error
    if not isinstance(payload, dict):
        raise PolicyError("invalid_request", f"the body must be a JSON object, not {type(payload).__name__}")
    return payload


def failed(error: Exception, request_id: str) -> Response:
    """The one translation of an exception into an HTTP answer; never a traceback."""
    if isinstance(error, PolicyError):
        known = error
    elif isinstance(error, BackPressureError):
        known = PolicyError("overloaded", "too many requests wait for a replica: try again later")
    elif isinstance(error, RayError | RayServeException):
        known = PolicyError("unavailable", "no replica could answer: try again later")
    else:
        logger.error("request %s failed", request_id, exc_info=error)
        known = PolicyError("internal", "the server failed; its log has the details under this request_id")
    body = known.body() | {"request_id": request_id, "error": {"message": known.message, "type": known.kind}}
    headers = {"Retry-After": "1"} if TABLE[known.kind].retryable else None
    return json_answer(body, known.http_status, headers)


def plain_completion(payload: dict[str, Any], request_id: str) -> dict[str, Any] | None:
    """The payload with defaults when it takes the short way, None when vLLM's own route must answer it."""
    if not payload.keys() <= PLAIN_KEYS or payload.get("stream") or payload.get("n", 1) != 1:
        return None
    prompt = payload.get("prompt")
    if not isinstance(prompt, str) and not (
        isinstance(prompt, list) and prompt and all(type(token) is int for token in prompt)
    ):
        return None
    values = {
        "max_tokens": payload.get("max_tokens", 16),
        "temperature": payload.get("temperature", 1.0),
        "top_p": payload.get("top_p", 1.0),
        "seed": payload.get("seed"),
        "ignore_eos": payload.get("ignore_eos", False),
    }
    if type(values["max_tokens"]) is not int or values["max_tokens"] < 1 or not prompt:
        return None
    if not all(isinstance(values[key], int | float) and values[key] >= 0 for key in ("temperature", "top_p")):
        return None
    if not (values["seed"] is None or type(values["seed"]) is int) or not 0 < values["top_p"] <= 1:
        return None
    return values | {"prompt": prompt, "request_id": f"cmpl-{request_id}-{uuid.uuid4().hex[:8]}"}


def completion_body(answer: dict[str, Any], model: str, request_id: str) -> dict[str, Any]:
    prompt, completion = answer["prompt_tokens"], answer["completion_tokens"]
    choice = {"index": 0, "text": answer["text"], "logprobs": None, "finish_reason": answer["finish_reason"]}
    return {
        "id": f"cmpl-{request_id}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": model,
        "choices": [choice],
        "usage": {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion},
        "weight_version": answer["weight_version"],
    }
