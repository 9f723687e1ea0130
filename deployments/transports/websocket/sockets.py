"""What both WebSocket protocols share: who connects, frames in, bounded sends out, and how a connection ends."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from configs.policies import BasePolicy
from deployments.errors import PolicyError
from deployments.transports.front import Front
from deployments.transports.http.answers import translated

NORMAL, REFUSED, TOO_BIG, FAILED, TRY_AGAIN = 1000, 1008, 1009, 1011, 1013
LONGEST_REASON_BYTES = 123  # of a close frame
LONGEST_NAME = 200
CLOSE_CODES = {"unauthenticated": REFUSED, "too_large": TOO_BIG, "overloaded": TRY_AGAIN}


@dataclass(frozen=True, slots=True)
class Caller:
    """Who opened a connection: `policy` (None: not said), and a session that others share only if it was `named`."""

    policy: str | None
    session_id: str
    named: bool


def caller(socket: WebSocket, front: Front) -> Caller:
    """From the path (/policies/NAME/...), `?policy=`, and the header `x-session-id` or `?session_id=`: a connection
    without it is a session of its own. Raises PolicyError."""
    named = socket.headers.get("x-session-id") or socket.query_params.get("session_id") or ""
    if len(named) > LONGEST_NAME:
        raise PolicyError("invalid_request", f"session_id: at most {LONGEST_NAME} characters, not {len(named)}")
    policy = socket.path_params.get("name") or socket.query_params.get("policy") or front.config.websocket.policy
    return Caller(policy, named or f"socket {uuid.uuid4().hex}", bool(named))


async def served(
    socket: WebSocket,
    front: Front,
    fits: Callable[[BasePolicy], bool],
    answer_all: Callable[[Caller, BasePolicy], Awaitable[None]],
    failed: Callable[[PolicyError], Awaitable[None]],
) -> None:
    """One connection, until the client leaves or something fails. `answer_all` answers its frames by a policy that
    `fits`; `failed` ends it with a failure. Never raises for what a client did."""
    await socket.accept()
    try:
        who = caller(socket, front)
        policy = await front.policy(who.policy, fits)
        try:
            await answer_all(who, policy)
        finally:
            if not who.named:
                await front.acting.reset(policy.name, who.session_id)
    except WebSocketDisconnect as left:
        await closed(socket, left.code, left.reason, front.config.websocket.send_deadline_s)
    except Exception as error:
        await failed(translated(error, getattr(error, "request_id", "")))


async def frames(socket: WebSocket) -> AsyncIterator[bytes | str]:
    """The frames of a client, binary or text. Raises WebSocketDisconnect when it leaves."""
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code") or NORMAL, message.get("reason"))
        data = message.get("bytes")
        yield data if data is not None else message.get("text") or ""


async def sent(socket: WebSocket, frame: bytes | str, deadline_s: float) -> None:
    """Sends a frame. Raises WebSocketDisconnect for a client that has left, or that does not receive it in time."""
    try:
        async with asyncio.timeout(deadline_s):
            if isinstance(frame, bytes):
                await socket.send_bytes(frame)
            else:
                await socket.send_text(frame)
    except TimeoutError as error:
        raise WebSocketDisconnect(FAILED, "the client did not receive its answer in time") from error


async def closed(socket: WebSocket, code: int, reason: str, deadline_s: float) -> None:
    """Ends the connection, unless the client has done so."""
    if WebSocketState.DISCONNECTED in (socket.client_state, socket.application_state):
        return
    short = reason.encode()[:LONGEST_REASON_BYTES].decode(errors="ignore")
    try:
        async with asyncio.timeout(deadline_s):
            await socket.close(code, short)
    except (TimeoutError, RuntimeError):  # it left meanwhile, or does not read: Serve drops the connection now
        return
