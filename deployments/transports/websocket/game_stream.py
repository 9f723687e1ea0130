"""A stream of JSON for games: what `POST /get_action` takes and gives, without a request per frame.

    -> {"type": "observation", "task_name": "MineRLBasaltFindCave-v0", "image": {"data": BASE64}, "step": 3}
    <- {"type": "action", "action": {...}, "reasoning": "...", "step": 3, "parse_ok": true, "request_id": "..."}
    -> {"type": "reset"}
    <- {"type": "reset"}

A message that cannot be answered gets {"type": "error", "kind", "message", "request_id"} in its place, and the
connection stays open; answers keep the order of the messages.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import orjson
from starlette.websockets import WebSocket

from configs.policies import BasePolicy
from deployments.errors import PolicyError
from deployments.transports.front import Front
from deployments.transports.http.answers import in_time, translated
from deployments.transports.http.asked import parsed
from deployments.transports.http.game import GameBody, content, question
from deployments.transports.http.requests import typed
from deployments.transports.in_order import by_size, in_order
from deployments.transports.websocket.sockets import CLOSE_CODES, FAILED, Caller, closed, frames, sent, served


async def serve_game(socket: WebSocket, front: Front) -> None:
    """One connection, until the client leaves. Never raises for what a client did."""

    async def answer_all(who: Caller, policy: BasePolicy) -> None:
        await _answer_all(socket, front, who, policy)

    async def failed(failure: PolicyError) -> None:
        code = CLOSE_CODES.get(failure.kind, FAILED)
        await closed(socket, code, failure.message, front.config.websocket.send_deadline_s)

    await served(socket, front, lambda policy: policy.plays, answer_all, failed)


async def _answer_all(socket: WebSocket, front: Front, who: Caller, policy: BasePolicy) -> None:
    settings = front.config.websocket

    async def answer(message: bytes) -> str:
        return orjson.dumps(await _answered(message, front, who, policy)).decode()

    messages = _messages(frames(socket))
    async with aclosing(in_order(messages, answer, settings.max_unanswered, lambda m: by_size(len(m)))) as answers:
        async for text in answers:
            await sent(socket, text, settings.send_deadline_s)


async def _answered(message: bytes, front: Front, who: Caller, policy: BasePolicy) -> dict[str, Any]:
    """The answer to one message; a failure is an answer, too."""
    request_id = uuid.uuid4().hex
    try:
        if len(message) > front.config.max_body_bytes:
            raise PolicyError(
                "too_large", f"a message of {len(message)} bytes; the limit is {front.config.max_body_bytes}"
            )
        fields = await parsed(message, front.config.max_json_values)
        given = fields.get("request_id")
        request_id = given if isinstance(given, str) and given else request_id
        match fields.get("type", "observation"):
            case "observation":
                return await _action(typed(GameBody, fields), request_id, front, who, policy)
            case "reset":
                await front.acting.reset(policy.name, who.session_id)
                return {"type": "reset", "request_id": request_id}
            case other:
                raise PolicyError("invalid_request", f"type: must be observation or reset; got {str(other)[:60]!r}")
    except Exception as error:
        return {"type": "error", **translated(error, request_id).body(), "request_id": request_id}


async def _action(body: GameBody, request_id: str, front: Front, who: Caller, policy: BasePolicy) -> dict[str, Any]:
    deadline_unix_s = time.time() + policy.request_deadline_s
    with front.served.under_way(policy):
        asked = await question(body, policy, request_id, who.session_id, deadline_unix_s)
        result = await in_time(front.acting.play(policy.name, asked), deadline_unix_s)
    return {"type": "action", **content(result)}


async def _messages(received: AsyncIterator[bytes | str]) -> AsyncIterator[bytes]:
    async for frame in received:
        yield frame.encode() if isinstance(frame, str) else frame
