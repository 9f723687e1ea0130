"""Which pages may call from a browser."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from fastapi import FastAPI

from deployments.transports.http import cors

PREFLIGHT = {"Origin": "https://lab.example", "Access-Control-Request-Method": "POST"}


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    yield
    cors.allow([])


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    api = FastAPI()
    api.add_middleware(cors.AllowOrigins)

    @api.get("/health")
    async def _health() -> str:
        return "well"

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=api), base_url="http://test") as opened:
        yield opened


async def test_no_page_may_call_unless_it_is_named(client: httpx.AsyncClient) -> None:
    answer = await client.get("/health", headers={"Origin": "https://lab.example"})
    assert answer.status_code == 200
    assert "access-control-allow-origin" not in answer.headers


async def test_a_page_that_is_named_may_ask_and_read_what_the_headers_say(client: httpx.AsyncClient) -> None:
    cors.allow(["https://lab.example"])
    asked = await client.options("/health", headers=PREFLIGHT)
    assert (asked.status_code, asked.headers["access-control-allow-origin"]) == (200, "https://lab.example")
    answer = await client.get("/health", headers={"Origin": "https://lab.example"})
    assert answer.headers["access-control-allow-origin"] == "https://lab.example"
    assert "x-weight-version" in answer.headers["access-control-expose-headers"]


async def test_another_page_stays_outside(client: httpx.AsyncClient) -> None:
    cors.allow(["https://lab.example"])
    answer = await client.options("/health", headers=PREFLIGHT | {"Origin": "https://other.example"})
    assert answer.status_code == 400
