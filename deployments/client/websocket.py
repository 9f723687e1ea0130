"""WebSocket client of policies that act, in openpi's protocol; also of an openpi server. No ray, torch or vllm.

with SocketClient("ws://gpu-machine:8000") as robot:
    chunk = robot.act(Seen(images=[base(), wrist()], instruction="fold the towel", state=joints())).actions
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import orjson
from websockets.asyncio.client import ClientConnection as AsyncConnection
from websockets.asyncio.client import connect as connect_async
from websockets.exceptions import InvalidStatus, WebSocketException
from websockets.sync.client import ClientConnection, connect

from deployments.client.images import Compression
from deployments.client.observing import Seen, Told
from deployments.client.retrying import async_retrying, retrying
from deployments.errors import TABLE, PolicyError, kind_of_status
from deployments.protocol.msgpack_numpy import Limits, packed, unpacked

MOST_ANSWER_BYTES = 64 * 2**20
OPENPI_NAMES = {
    "cameras": ["observation/image", "observation/wrist_image"],
    "state": ["observation/state"],
    "prompt": "prompt",
}

CLOSE_LIMIT_S = 2.0  # a robot does not wait longer for a server to say goodbye


class _Spoken:
    """What the two clients have in common: how questions are put, and answers read."""

    def __init__(
        self,
        url: str,
        key: str | None = None,
        policy: str | None = None,
        session_id: str | None = None,
        timeout_s: float = 10.0,
        retries: int = 3,
        compression: Compression | None = Compression(),  # noqa: B008  frozen
    ) -> None:
        """`url`: ws:// or wss://, with the server's port. `policy`: needed where the server has several that could
        answer. `timeout_s`: of a question, all its tries together. `compression`: None sends frames as arrays; so they
        are sent to a server that is not rayward's, whatever is set here."""
        self._url = f"{url.rstrip('/')}/" + (f"?policy={policy}" if policy else "")
        self._timeout_s = timeout_s
        self._retries = retries
        self._compression = compression
        session = {"x-session-id": session_id or uuid.uuid4().hex}
        self._connecting: dict[str, Any] = {
            "additional_headers": session | ({"Authorization": f"Api-Key {key}"} if key else {}),
            "compression": None,
            "close_timeout": CLOSE_LIMIT_S,
            "max_size": MOST_ANSWER_BYTES,
        }
        self.metadata: dict[str, Any] = {}  # what the server said of itself when the connection was opened

    def _observation(self, seen: Seen) -> dict[str, Any]:
        names = {**OPENPI_NAMES, **(self.metadata.get("observation_keys") or {})}
        ours = self.metadata.get("service") == "rayward"
        if len(seen.images) > len(names["cameras"]):
            raise PolicyError(
                "invalid_request",
                f"{len(seen.images)} frames, but the policy has cameras {', '.join(names['cameras'])}",
            )
        observation: dict[str, Any] = {names["prompt"]: seen.instruction, "request_id": seen.request_id}
        for name, frame in zip(names["cameras"], seen.images, strict=False):
            if frame is not None:
                observation[name] = self._compression.jpeg(frame) if ours and self._compression else np.asarray(frame)
        if seen.state is not None:
            observation[names["state"][0] if len(names["state"]) == 1 else "state"] = np.asarray(seen.state, np.float32)
        if ours:
            observation |= {"timestamp_ns": int(seen.taken_unix_s * 1e9), "noise_seed": seen.noise_seed}
        if seen.committed is not None:
            observation |= {"prefix_action": seen.committed.actions, "delay": seen.committed.delay}
        return observation

    def _read(self, frame: bytes | str, request_id: str) -> dict[str, Any]:
        if isinstance(frame, str):
            raise _failure(frame, request_id)
        try:
            answer = unpacked(frame, Limits(max_bytes=MOST_ANSWER_BYTES))
        except ValueError as error:
            raise PolicyError("internal", f"the server's answer cannot be read: {error}", request_id) from error
        if not isinstance(answer, dict):
            raise PolicyError("internal", f"the server answered {type(answer).__name__}, not a dict", request_id)
        return answer

    def _unreachable(self, error: Exception, request_id: str) -> PolicyError:
        if isinstance(error, TimeoutError):
            return PolicyError("deadline_exceeded", f"no answer from {self._url} in time", request_id)
        if isinstance(error, InvalidStatus):
            kind = kind_of_status(error.response.status_code)
            return PolicyError(kind, f"{self._url} refused the connection: {error}", request_id)
        return PolicyError("unavailable", f"{self._url} cannot be reached: {error}", request_id)


class SocketClient(_Spoken):
    """Blocks until the answer is there; one question at a time. Connects when it is needed, and again after a failure.

    Raises PolicyError with the server's kind; "unavailable" when it cannot be reached, "deadline_exceeded" after
    `timeout_s`. The connection is given up then: an answer that is late is never taken for the next question's.
    """

    def __init__(self, url: str, **settings: Any) -> None:
        super().__init__(url, **settings)
        self._connection: ClientConnection | None = None

    def act(self, seen: Seen) -> Told:
        deadline = time.monotonic() + self._timeout_s
        return told(retrying(self._retries, self._timeout_s)(self._once, seen, seen.request_id, deadline))

    def infer(self, observation: Mapping[str, Any]) -> dict[str, Any]:
        """As openpi's client: arrays under the policy's own names in, a dict with `actions` [horizon, D] out."""
        request_id = str(observation.get("request_id") or uuid.uuid4().hex)
        deadline = time.monotonic() + self._timeout_s
        question = {**observation, "request_id": request_id}
        answer: dict[str, Any] = retrying(self._retries, self._timeout_s)(self._once, question, request_id, deadline)
        return answer

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _once(self, question: Seen | dict[str, Any], request_id: str, deadline: float) -> dict[str, Any]:
        try:
            connection = self._connected(deadline)
            connection.send(packed(self._observation(question) if isinstance(question, Seen) else question))
            return _checked(self._read(connection.recv(_left_s(deadline)), request_id), request_id)
        except (OSError, WebSocketException) as error:  # TimeoutError is an OSError
            self.close()
            raise self._unreachable(error, request_id) from error
        except PolicyError:
            self.close()
            raise

    def _connected(self, deadline: float) -> ClientConnection:
        if self._connection is None:
            self._connection = connect(self._url, open_timeout=_left_s(deadline), **self._connecting)
            self.metadata = self._read(self._connection.recv(_left_s(deadline)), "")
        return self._connection


class AsyncSocketClient(_Spoken):
    """As SocketClient, for asyncio."""

    def __init__(self, url: str, **settings: Any) -> None:
        super().__init__(url, **settings)
        self._connection: AsyncConnection | None = None

    async def act(self, seen: Seen) -> Told:
        deadline = time.monotonic() + self._timeout_s
        answer: dict[str, Any] = await async_retrying(self._retries, self._timeout_s)(
            self._once, seen, seen.request_id, deadline
        )
        return told(answer)

    async def close(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            await connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _once(self, seen: Seen, request_id: str, deadline: float) -> dict[str, Any]:
        answered = False
        try:
            connection = await self._connected(deadline)
            await connection.send(packed(self._observation(seen)))
            frame = await _in_time(connection.recv(), deadline)
            answer = _checked(self._read(frame, request_id), request_id)
            answered = True
            return answer
        except (OSError, WebSocketException) as error:
            raise self._unreachable(error, request_id) from error
        finally:
            if not answered:  # cancelled, too: the answer may still come
                await self.close()

    async def _connected(self, deadline: float) -> AsyncConnection:
        if self._connection is None:
            self._connection = await connect_async(self._url, open_timeout=_left_s(deadline), **self._connecting)
            self.metadata = self._read(await _in_time(self._connection.recv(), deadline), "")
        return self._connection


def told(answer: Mapping[str, Any]) -> Told:
    """An answer of ours, or of an openpi server, which says nothing but `actions` and its timing."""
    timing = answer.get("server_timing") or {}
    return Told(
        request_id=str(answer.get("request_id", "")),
        actions=np.array(answer["actions"], np.float32),
        weight_version=int(answer.get("weight_version", 0)),
        text=str(answer.get("text", "")),
        parse_ok=bool(answer.get("parse_ok", True)),
        interventions=tuple(answer.get("interventions", ())),
        infer_ms=float(timing.get("infer_ms", 0.0)),
        observation_age_ms=float(answer.get("observation_age_ms", 0.0)),
    )


def _checked(answer: dict[str, Any], request_id: str) -> dict[str, Any]:
    """Raises PolicyError for the answer to another question, and for one without actions."""
    if answer.get("request_id", request_id) != request_id:
        raise PolicyError("internal", f"the server answered {answer['request_id']!r} instead", request_id)
    if "actions" not in answer:
        raise PolicyError(
            "internal", f"the server's answer has no actions; it has {', '.join(map(str, answer))}", request_id
        )
    return answer


def _failure(text: str, request_id: str) -> PolicyError:
    """What a TEXT frame says: ours is JSON with kind and message, an openpi server's is a traceback."""
    try:
        body = orjson.loads(text)
    except orjson.JSONDecodeError:
        body = None
    if isinstance(body, dict) and body.get("kind") in TABLE:
        return PolicyError(body["kind"], str(body.get("message")), request_id)
    return PolicyError("internal", f"the server failed: {(text.strip().splitlines() or [''])[-1][:500]}", request_id)


async def _in_time(awaitable: Any, deadline: float) -> Any:
    async with asyncio.timeout(_left_s(deadline)):
        return await awaitable


def _left_s(deadline: float) -> float:
    return max(0.001, deadline - time.monotonic())
