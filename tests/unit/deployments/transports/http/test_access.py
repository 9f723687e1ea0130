"""The door of the HTTP application, over real sockets: nothing gets in without a key, on no route and no protocol."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
import uvicorn
import websockets
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket

from deployments.access.keys import Keys, new_key
from deployments.transports.http import access

MADE = new_key("robot-1")
NAME, _, HASH = MADE.line.partition(":")


async def caller(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"hello {request.state.caller}")


async def healthy(request: Request) -> PlainTextResponse:
    return PlainTextResponse("OK")


async def stream(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_text(f"hello {socket.state.caller}")
    await socket.close()


@pytest.fixture
async def address(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """host:port of an application with the door, for which keys are required."""
    monkeypatch.setattr(access, "_keys", Keys({NAME: HASH}, failures_per_minute=2))
    routes = [
        Route("/health", healthy, methods=["GET", "HEAD", "POST"]),
        Route("/act", caller, methods=["GET", "POST", "OPTIONS"]),
        WebSocketRoute("/", stream),
    ]
    app = Starlette(routes=[Mount("/below", Starlette(routes=routes)), *routes])
    app.add_middleware(access.RequireKey)
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", lifespan="off"))
    running = asyncio.create_task(server.serve())
    while not server.started:
        assert not running.done()
        await asyncio.sleep(0.01)
    yield f"127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    await running


async def get(address: str, path: str, authorization: str | None = None, method: str = "GET") -> httpx.Response:
    headers = {"x-request-id": "r-1"} | ({"authorization": authorization} if authorization else {})
    async with httpx.AsyncClient() as client:
        return await client.request(method, f"http://{address}{path}", headers=headers)


@pytest.mark.parametrize("scheme", ["Bearer", "Api-Key"])
async def test_a_key_opens_the_door_and_names_the_caller(address: str, scheme: str) -> None:
    answer = await get(address, "/act", f"{scheme} {MADE.key}")
    assert (answer.status_code, answer.text) == (200, "hello robot-1")


@pytest.mark.parametrize("authorization", [None, "Bearer wrong", f"Basic {MADE.key}"], ids=["none", "wrong", "basic"])
@pytest.mark.parametrize("path", ["/act", "/below/act", "/no-such-route", "/health/../act", "/HEALTH"])
async def test_without_a_valid_key_no_route_can_be_told_from_another(
    address: str, path: str, authorization: str | None
) -> None:
    answer = await get(address, path, authorization)

    assert answer.status_code == 401
    assert answer.json() | {"error": None} == {
        "kind": "unauthenticated",
        "message": "missing or invalid API key",
        "detail": "missing or invalid API key",
        "request_id": "r-1",
        "error": None,
    }
    assert answer.headers["www-authenticate"] == "Bearer"


async def test_probes_and_preflight_requests_need_no_key(address: str) -> None:
    assert (await get(address, "/health")).text == "OK"
    assert (await get(address, "/health", method="HEAD")).status_code == 200
    assert (await get(address, "/act", method="OPTIONS")).text == "hello "


async def test_guesses_are_answered_429_with_the_time_to_wait(address: str) -> None:
    wrong = [f"Bearer rw_robot-1_{number:048x}" for number in range(3)]

    answers = [await get(address, "/act", authorization) for authorization in wrong]

    assert [answer.status_code for answer in answers] == [401, 401, 429]
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 60


async def test_a_websocket_needs_a_key_too(address: str) -> None:
    with pytest.raises(websockets.InvalidStatus) as caught:
        await websockets.connect(f"ws://{address}/")
    assert caught.value.response.status_code in (401, 403)

    async with websockets.connect(
        f"ws://{address}/", additional_headers={"Authorization": f"Api-Key {MADE.key}"}
    ) as socket:
        assert await socket.recv() == "hello robot-1"


async def test_a_process_that_was_not_told_its_keys_lets_nobody_in(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "_keys", None)
    assert (await get(address, "/act", f"Bearer {MADE.key}")).status_code == 503


async def test_without_configured_keys_everybody_is_let_in_without_a_name(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "_keys", Keys({}))
    assert (await get(address, "/act")).text == "hello "
