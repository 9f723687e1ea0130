"""Pages of other sites may call the application from a browser, where `http.cors_origins` names them.

A module of its own because Serve pickles the ingress class by value: what is set here is one per process.
"""

from __future__ import annotations

from collections.abc import Sequence

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

TOLD = ("x-request-id", "x-weight-version", "x-parse-ok", "x-observation-age-ms", "x-timing-ms", "Retry-After")

_origins: tuple[str, ...] = ()


def allow(origins: Sequence[str]) -> None:
    """Sets the origins of this process; "*" is any. Until then there is none."""
    global _origins
    _origins = tuple(origins)


class AllowOrigins:
    """ASGI middleware: Starlette's, with origins that are known only when the ingress starts."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        if _origins and scope["type"] == "http":
            app = CORSMiddleware(
                app, allow_origins=_origins, allow_methods=["*"], allow_headers=["*"], expose_headers=TOLD
            )
        await app(scope, receive, send)
