"""Every failure has one status, from one table, and one body."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, HTTPException
from ray.exceptions import RayError
from ray.serve.exceptions import BackPressureError

from deployments.errors import TABLE, PolicyError
from deployments.transports.http.answers import answer_failures


class GrpcError(Exception):
    """As grpc.aio.AioRpcError: it has a code() with a name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def code(self) -> GrpcError:
        return self


def raising(error: Exception) -> Callable[[], None]:
    def handler() -> None:
        raise error

    return handler


async def answer_of(
    error: Exception | None = None, method: str = "GET", path: str = "/", **query: Any
) -> httpx.Response:
    api = FastAPI()
    answer_failures(api)
    if error is not None:
        api.get("/")(raising(error))

    @api.get("/typed")
    async def typed(number: int) -> int:
        return number

    transport = httpx.ASGITransport(app=api)  # raises what comes behind an answer
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.request(method, path, params=query, headers={"x-request-id": "r1"})


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (PolicyError("too_large", "a"), "too_large"),
        (PolicyError("cancelled", "a"), "cancelled"),
        (BackPressureError(num_queued_requests=1, max_queued_requests=1), "overloaded"),
        (RayError("an actor died"), "unavailable"),
        (GrpcError("RESOURCE_EXHAUSTED"), "too_large"),
        (GrpcError("UNAVAILABLE"), "unavailable"),
        (HTTPException(404, "nothing here"), "not_found"),
        (HTTPException(418, "a teapot"), "invalid_request"),
        (ZeroDivisionError("secret"), "internal"),
    ],
)
async def test_an_exception_becomes_its_kinds_status_and_the_one_body(error: Exception, kind: str) -> None:
    answer = await answer_of(error)
    body = answer.json()
    assert (answer.status_code, body["kind"]) == (TABLE[kind].http_status, kind)
    assert set(body) == {"kind", "message", "detail", "request_id", "error"}
    assert body["error"] == {"message": body["message"], "type": kind}
    assert body["request_id"] == "r1"
    assert "secret" not in answer.text
    assert ("retry-after" in answer.headers) == TABLE[kind].retryable


@pytest.mark.parametrize(
    ("method", "path", "query", "kind"),
    [
        ("GET", "/no/such/route", {}, "not_found"),
        ("DELETE", "/typed", {}, "method_not_allowed"),
        ("GET", "/typed", {"number": "x"}, "invalid_request"),
    ],
)
async def test_the_frameworks_own_refusals_have_the_same_body(
    method: str, path: str, query: dict[str, Any], kind: str
) -> None:
    answer = await answer_of(None, method, path, **query)
    assert (answer.status_code, answer.json()["kind"]) == (TABLE[kind].http_status, kind)
    assert answer.json()["request_id"] == "r1"
