"""The JSON stream of games over a real uvicorn server and real sockets, with a player of the test's."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import orjson
import pytest
from fastapi import FastAPI, WebSocket
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from deployments.client.images import png
from deployments.errors import PolicyError
from deployments.protocol.game import PlayRequest, PlayResult, no_op
from deployments.transports.websocket.game_stream import serve_game
from tests.unit.deployments.transports.fakes import CHUNKS, FakeActing, front
from tests.unit.deployments.transports.serving import http_server

FRAME = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
IMAGE = {"data": base64.b64encode(png(FRAME)).decode()}
PLAYER = {"name": "player", "model": "made-up", "act": {"game": {}}}
OBSERVATION = {"type": "observation", "task_name": "MineRLBasaltFindCave-v0", "image": IMAGE}


class Player(FakeActing):
    """Jumps; step 13 fails; step 99 never ends."""

    def __init__(self) -> None:
        super().__init__()
        self.played: list[PlayRequest] = []

    async def play(self, policy: str | None, request: PlayRequest) -> PlayResult:
        self.played.append(request)
        self.begun.set()
        if request.step == 13:
            raise PolicyError("overloaded", "the queue is full")
        if request.step == 99:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        return PlayResult(request.request_id, {**no_op(), "jump": 1}, "a wall", request.step, weight_version=7)


@asynccontextmanager
async def opened(player: Player, policies: list[Any] | None = None, **options: Any) -> AsyncIterator[ClientConnection]:
    app = FastAPI()

    @app.websocket("/stream")
    async def stream(socket: WebSocket) -> None:
        await serve_game(socket, front(player, policies=policies or [PLAYER]))

    async with http_server(app) as address, connect(f"ws://{address}/stream", **options) as connection:
        yield connection


async def asked(connection: ClientConnection, **message: Any) -> dict[str, Any]:
    await connection.send(orjson.dumps(message).decode())
    answer: dict[str, Any] = orjson.loads(await connection.recv())
    return answer


async def test_an_observation_is_answered_by_an_action_with_every_key() -> None:
    player = Player()
    async with opened(player) as connection:
        answer = await asked(connection, **OBSERVATION, step=3, request_id="7")

    assert answer["type"] == "action"
    assert answer["action"] == {**no_op(), "jump": 1}
    assert (answer["step"], answer["request_id"], answer["parse_ok"], answer["weight_version"]) == (3, "7", True, 7)
    assert np.array_equal(player.played[0].steps[-1].frame, FRAME)


async def test_a_message_that_fails_is_answered_by_an_error_and_the_game_goes_on() -> None:
    async with opened(Player()) as connection:
        full = await asked(connection, **OBSERVATION, step=13, request_id="8")
        blind = await asked(connection, type="observation", task_name="MineRLBasaltFindCave-v0")
        odd = await asked(connection, type="surprise")
        await connection.send("not JSON")
        broken = orjson.loads(await connection.recv())
        well = await asked(connection, **OBSERVATION)

    assert (full["type"], full["kind"], full["message"], full["request_id"]) == (
        "error", "overloaded", "the queue is full", "8",
    )  # fmt: skip
    assert blind["message"] == "Either 'image' or 'history' must be provided"
    assert [answer["kind"] for answer in (blind, odd, broken)] == ["invalid_request"] * 3
    assert well["type"] == "action"


async def test_a_connection_is_a_session_that_can_be_reset_and_is_forgotten_at_its_end() -> None:
    player = Player()
    async with opened(player) as connection:
        await asked(connection, **OBSERVATION)
        assert (await asked(connection, type="reset"))["type"] == "reset"
    await player.until(lambda: len(player.forgotten) == 2)

    assert player.forgotten == [player.played[0].session_id] * 2


async def test_a_client_that_leaves_ends_the_inference() -> None:
    player = Player()
    async with opened(player) as connection:
        await connection.send(orjson.dumps({**OBSERVATION, "step": 99}).decode())
        await player.begun.wait()
        await connection.close()

        async with asyncio.timeout(10):
            await player.cancelled.wait()


async def test_where_nothing_plays_the_connection_is_closed_with_the_reason() -> None:
    async with opened(Player(), [CHUNKS]) as connection:
        with pytest.raises(ConnectionClosed):
            await connection.recv()

    assert connection.close_code == 1011
    assert "name a policy" in str(connection.close_reason)
