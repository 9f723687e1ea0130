"""Between HTTP and the ingress: bodies in, JSON answers out, and the one translation of an exception into a status.

A module of its own because Serve pickles the ingress class by value: what it calls must be importable.
"""

from __future__ import annotations

import logging
from typing import Any

import orjson
from fastapi.responses import Response
from ray.exceptions import RayError
from ray.serve.exceptions import BackPressureError, RayServeException

from deployments.errors import TABLE, PolicyError

logger = logging.getLogger("ray.serve")


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
