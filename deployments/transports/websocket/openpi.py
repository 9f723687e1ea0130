"""openpi's protocol for robots: the first frame is metadata, then each observation is answered by a chunk of actions.

A client may send the next observation before the last is answered; answers keep the order. A failure is a TEXT frame
with kind and message, and the end of the connection: openpi's client raises what it reads.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import asdict
from typing import Any

import numpy as np
import orjson
import xxhash
from starlette.websockets import WebSocket, WebSocketDisconnect

from configs.policies import BasePolicy
from deployments.acting.observations import decoded
from deployments.errors import PolicyError
from deployments.protocol.act import ActRequest, ActResult, PolicyMetadata
from deployments.protocol.msgpack_numpy import Limits, packed, unpacked
from deployments.transports.front import Front
from deployments.transports.http.answers import in_time
from deployments.transports.in_order import by_size, in_order
from deployments.transports.websocket.observations import act_request
from deployments.transports.websocket.sockets import CLOSE_CODES, FAILED, Caller, closed, frames, sent, served


async def serve_openpi(socket: WebSocket, front: Front) -> None:
    """One connection, until the client leaves or something fails. Never raises for what a client did."""

    async def answer_all(who: Caller, policy: BasePolicy) -> None:
        await _answer_all(socket, front, who, policy)

    async def failed(failure: PolicyError) -> None:
        await _fail(socket, failure, front.config.websocket.send_deadline_s)

    await served(socket, front, lambda policy: policy.acts, answer_all, failed)


async def _answer_all(socket: WebSocket, front: Front, who: Caller, policy: BasePolicy) -> None:
    settings = front.config.websocket
    about = await front.acting.described(policy.name, time.time() + policy.request_deadline_s)
    await sent(socket, packed(metadata(about, policy)), settings.send_deadline_s)
    connection = _Connection(front, who, policy)
    observations, most = _binary(frames(socket)), settings.max_unanswered
    async with aclosing(in_order(observations, connection.answer, most, lambda f: by_size(len(f)))) as answers:
        async for body in answers:
            began = time.monotonic()
            await sent(socket, body, settings.send_deadline_s)
            connection.sent(time.monotonic() - began)


class _Connection:
    """What is known between the answers of one connection."""

    def __init__(self, front: Front, who: Caller, policy: BasePolicy) -> None:
        self._front = front
        self._who = who
        self._policy = policy
        self._image_limits = front.limits(policy)
        self._limits = Limits(max_bytes=front.config.max_body_bytes)
        self._total_ms: float | None = None  # of the answer before, its sending included: known after it was sent
        self._prev_total_ms: float | None = None

    async def answer(self, frame: bytes) -> bytes:
        began, deadline_unix_s = time.monotonic(), time.time() + self._policy.request_deadline_s
        with self._front.served.under_way(self._policy):
            question = await decoded(self._question, frame, deadline_unix_s)
            result = await in_time(self._front.acting.act(self._policy.name, question), deadline_unix_s)
        body = packed(_body(question.request_id.rpartition("#")[0], result, self._prev_total_ms))
        self._total_ms = 1000 * (time.monotonic() - began)
        return body

    def _question(self, frame: bytes, deadline_unix_s: float) -> ActRequest:
        """Runs in a thread. The id is the client's with a digest of the frame, as nobody else's is."""
        observation = _observation(frame, self._limits)
        request_id = str(observation.get("request_id") or uuid.uuid4().hex)
        digest = xxhash.xxh3_128_hexdigest(frame)
        return act_request(
            observation,
            self._policy.act,
            self._image_limits,
            f"{request_id}#{digest}",
            self._who.session_id,
            deadline_unix_s,
        )

    def sent(self, took_s: float) -> None:
        self._prev_total_ms = (self._total_ms or 0.0) + 1000 * took_s


def metadata(about: PolicyMetadata, policy: BasePolicy) -> dict[str, Any]:
    """The first frame: what the policy is, and under which names it looks for its observations."""
    known = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(about).items()}
    return {**known, "observation_keys": policy.act.openpi.model_dump(), "service": "rayward"}


def _observation(frame: bytes, limits: Limits) -> dict[str, Any]:
    try:
        found = unpacked(frame, limits)
    except ValueError as error:
        kind = "too_large" if len(frame) > limits.max_bytes else "invalid_request"
        raise PolicyError(kind, f"the observation cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise PolicyError("invalid_request", f"an observation is a dict, not {type(found).__name__}")
    return {key.decode(errors="replace") if isinstance(key, bytes) else key: value for key, value in found.items()}


def _body(request_id: str, result: ActResult, prev_total_ms: float | None) -> dict[str, Any]:
    timing = {"infer_ms": result.infer_ms, "queue_ms": result.queue_ms}
    if prev_total_ms is not None:
        timing["prev_total_ms"] = prev_total_ms
    return {
        "actions": np.ascontiguousarray(result.actions),
        "server_timing": timing,
        "request_id": request_id,
        "observation_id": result.observation_id.rpartition("#")[0] or request_id,
        "observation_age_ms": result.observation_age_ms,
        "weight_version": result.weight_version,
        "interventions": list(result.interventions),
        "parse_ok": result.parse_ok,
        **({"text": result.text} if result.text else {}),
    }


async def _binary(received: AsyncIterator[bytes | str]) -> AsyncIterator[bytes]:
    async for frame in received:
        if isinstance(frame, str):
            raise PolicyError("invalid_request", "an observation is a binary frame of msgpack; text is not read")
        yield frame


async def _fail(socket: WebSocket, failure: PolicyError, deadline_s: float) -> None:
    text = orjson.dumps(failure.body()).decode()
    try:
        await sent(socket, text, deadline_s)
    except (WebSocketDisconnect, RuntimeError):  # it left before it could be told
        return
    await closed(socket, CLOSE_CODES.get(failure.kind, FAILED), failure.message, deadline_s)
