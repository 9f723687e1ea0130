"""What both WebSocket protocols share, on a socket of the test's."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.websockets import WebSocket, WebSocketDisconnect

from deployments.errors import PolicyError
from deployments.transports.websocket.sockets import caller, closed, frames, sent
from tests.unit.deployments.transports.fakes import front


class Client:
    """The other end of a WebSocket: what it sends is given, what it gets is kept. `reads`: whether it takes any."""

    def __init__(self, *messages: dict[str, Any], reads: bool = True, query: str = "", **headers: str) -> None:
        self._messages = [{"type": "websocket.connect"}, *messages]
        self._reads = reads
        self.got: list[dict[str, Any]] = []
        names = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        scope = {"type": "websocket", "headers": names, "query_string": query.encode(), "path": "/", "path_params": {}}
        self.socket = WebSocket(scope, self._receive, self._send)

    async def _receive(self) -> dict[str, Any]:
        return self._messages.pop(0)

    async def _send(self, message: Any) -> None:
        if message["type"] == "websocket.send" and not self._reads:
            await asyncio.Event().wait()
        self.got.append(message)

    async def accepted(self) -> WebSocket:
        await self.socket.accept()
        return self.socket


async def test_binary_and_text_frames_are_read_until_the_client_leaves() -> None:
    client = Client(
        {"type": "websocket.receive", "bytes": b"1"},
        {"type": "websocket.receive", "text": "2"},
        {"type": "websocket.disconnect", "code": 1001},
    )
    stream = frames(await client.accepted())

    assert [await anext(stream), await anext(stream)] == [b"1", "2"]
    with pytest.raises(WebSocketDisconnect) as left:
        await anext(stream)
    assert left.value.code == 1001


async def test_a_client_that_takes_nothing_is_given_up() -> None:
    socket = await Client(reads=False).accepted()

    with pytest.raises(WebSocketDisconnect, match="in time"):
        await sent(socket, b"answer", deadline_s=0.01)


async def test_a_reason_that_is_too_long_for_a_close_frame_is_cut_between_characters() -> None:
    client = Client()

    await closed(await client.accepted(), 1011, "ü" * 100, deadline_s=1)

    assert client.got[-1] == {"type": "websocket.close", "code": 1011, "reason": "ü" * 61}


def test_connections_share_no_session_unless_they_name_one() -> None:
    first, second = caller(Client().socket, front()), caller(Client().socket, front())
    named = caller(Client(x_session_id="robot 4").socket, front())

    assert first.session_id != second.session_id
    assert (first.named, named.named, named.session_id) == (False, True, "robot 4")


def test_a_policy_is_named_in_the_query_or_by_the_configuration() -> None:
    assert caller(Client(query="policy=left").socket, front()).policy == "left"
    assert caller(Client().socket, front(websocket={"policy": "arm"})).policy == "arm"
    assert caller(Client().socket, front()).policy is None


def test_a_sessions_name_is_bounded() -> None:
    with pytest.raises(PolicyError, match="at most 200"):
        caller(Client(x_session_id="x" * 201).socket, front())
