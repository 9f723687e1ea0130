"""The door of the HTTP application: requests and WebSockets without a valid key get no further.

A module of its own because Serve pickles the ingress class by value: what is set here is one per process.
"""

from __future__ import annotations

import uuid

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from deployments.access.keys import ANONYMOUS, Keys, from_authorization
from deployments.errors import PolicyError
from deployments.transports.http.answers import failure_answer

OPEN_PATHS = {"/health", "/healthz"}  # balancers and probes have no key; nothing is told but whether policies answer
POLICY_VIOLATION = 1008  # WebSocket close code

_keys: Keys | None = None


def require(keys: Keys) -> None:
    """Sets the keys of this process. Until then every request is refused."""
    global _keys
    _keys = keys


class RequireKey:
    """ASGI middleware that reads `Authorization: Bearer K` or `Api-Key K`. Behind it `scope["state"]["caller"]` is the
    name of the key, empty where no keys are required. A browser's preflight request (OPTIONS) needs none."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            try:
                caller = ANONYMOUS if _is_open(scope) else await _caller(Headers(scope=scope))
            except PolicyError as error:
                await _refuse(error, scope, receive, send)
                return
            scope.setdefault("state", {})["caller"] = caller
        await self._app(scope, receive, send)


def _is_open(scope: Scope) -> bool:
    path = scope["path"].removeprefix(scope.get("root_path", "").rstrip("/")).rstrip("/")
    return path in OPEN_PATHS or scope.get("method") == "OPTIONS"


async def _caller(headers: Headers) -> str:
    if _keys is None:
        raise PolicyError("unavailable", "the server is starting: try again")
    return await _keys.authenticate(from_authorization(headers.get("authorization")))


async def _refuse(error: PolicyError, scope: Scope, receive: Receive, send: Send) -> None:
    request_id = Headers(scope=scope).get("x-request-id") or uuid.uuid4().hex
    challenge = {"WWW-Authenticate": "Bearer"} if error.kind == "unauthenticated" else {}
    answer = failure_answer(error, request_id, challenge)
    if scope["type"] == "http":
        await answer(scope, receive, send)
    elif "websocket.http.response" in scope.get("extensions", {}):
        await answer(scope, receive, send)  # Starlette's responses answer a WebSocket's handshake, too
    else:
        await send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": error.message})
