"""JSON answers out, and the one translation of an exception into an HTTP answer.

A module of its own because Serve pickles the ingress class by value: what it calls must be importable.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Mapping
from typing import Any, Protocol, TypeVar

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from ray.exceptions import RayError
from ray.serve.exceptions import BackPressureError, RayServeException
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.errors import PolicyError, grpc_failure, kind_of_status

logger = logging.getLogger("ray.serve")

WEIGHT_VERSION_HEADER = "x-weight-version"
MARGIN_S = 0.25  # what acts keeps the deadline itself, and tells more than a time-out here could

AnswerT = TypeVar("AnswerT")


async def awaitable(response: Any) -> Any:
    return await response


def request_id_of(request: Request) -> str:
    """The client's `x-request-id`, or one that is made up once per request."""
    if not hasattr(request.state, "request_id"):
        request.state.request_id = request.headers.get("x-request-id") or uuid.uuid4().hex
    return str(request.state.request_id)


def json_answer(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(orjson.dumps(body), status_code=status, media_type="application/json", headers=headers)


def failure_body(error: PolicyError, request_id: str) -> dict[str, Any]:
    """The one body of all failures: ours, and `error` as OpenAI's clients read it."""
    return error.body() | {"request_id": request_id, "error": {"message": error.message, "type": error.kind}}


def failure_event(error: Exception, request_id: str) -> bytes:
    """A failure in the middle of a stream: one more event with the same body."""
    return b"data: " + orjson.dumps(failure_body(translated(error, request_id), request_id)) + b"\n\n"


def failure_answer(error: PolicyError, request_id: str, headers: Mapping[str, str] | None = None) -> Response:
    return json_answer(failure_body(error, request_id), error.http_status, {**error.headers(), **(headers or {})})


def translated(error: Exception, request_id: str) -> PolicyError:
    """What a client may know of an exception; never a traceback."""
    match error:
        case PolicyError():
            return error
        case HTTPException():
            return PolicyError(kind_of_status(error.status_code), str(error.detail))
        case RequestValidationError():
            first = error.errors()[0]
            return PolicyError("invalid_request", f"{'.'.join(map(str, first['loc']))}: {first['msg']}")
        case BackPressureError():
            return PolicyError("overloaded", "too many requests wait for a replica: try again later")
        case RayError() | RayServeException():
            return PolicyError("unavailable", "no replica could answer: try again later")
    if (known := grpc_failure(error)) is not None:
        return known
    logger.error("request %s failed", request_id, exc_info=error)
    return PolicyError("internal", "the server failed; its log has the details under this request_id")


def answer_failures(api: FastAPI) -> None:
    """Makes `translated` the application's only translation of exceptions, the framework's own refusals included."""
    api.add_exception_handler(HTTPException, _answer)
    api.add_exception_handler(RequestValidationError, _answer)
    api.add_middleware(_AnswerFailures)


async def _answer(request: Request, error: Exception) -> Response:
    request_id = request_id_of(request)
    return failure_answer(translated(error, request_id), request_id)


class _AnswerFailures:
    """Answers what no handler took. Not a handler for Exception: Starlette raises what that one answered once more,
    behind the answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def sending(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except Exception as error:
            if begun or scope["type"] != "http":
                raise
            response = await _answer(Request(scope, receive), error)
            await response(scope, receive, send)


def model_card(name: str) -> dict[str, Any]:
    """A policy as OpenAI's API describes a model."""
    return {"id": name, "object": "model", "created": 0, "owned_by": "rayward"}


class Timed(Protocol):
    """What the answers of robots and players have in common."""

    @property
    def request_id(self) -> str: ...
    @property
    def weight_version(self) -> int: ...
    @property
    def parse_ok(self) -> bool: ...
    @property
    def queue_ms(self) -> float: ...
    @property
    def infer_ms(self) -> float: ...
    @property
    def total_ms(self) -> float: ...
    @property
    def observation_age_ms(self) -> float: ...


def timing_ms(result: Timed) -> dict[str, float]:
    times = {"queue": result.queue_ms, "infer": result.infer_ms, "total": result.total_ms}
    return {name: round(milliseconds, 3) for name, milliseconds in times.items()}


def answer_headers(result: Timed) -> dict[str, str]:
    """What a bare list of numbers cannot say. Serve itself adds `x-request-id`."""
    interventions = ",".join(getattr(result, "interventions", ()))
    return {
        WEIGHT_VERSION_HEADER: str(result.weight_version),
        "x-parse-ok": "true" if result.parse_ok else "false",
        "x-observation-age-ms": f"{result.observation_age_ms:.3f}",
        "x-timing-ms": ", ".join(f"{name}={value}" for name, value in timing_ms(result).items()),
        **({"x-interventions": interventions} if interventions else {}),
    }


async def in_time(answer: Awaitable[AnswerT], deadline_unix_s: float) -> AnswerT:
    """Raises PolicyError("deadline_exceeded") for an answer that comes later than `deadline_unix_s` and a margin."""
    try:
        async with asyncio.timeout(max(0.0, deadline_unix_s - time.time()) + MARGIN_S):
            return await answer
    except TimeoutError as error:
        raise PolicyError("deadline_exceeded", "no answer within the deadline") from error
