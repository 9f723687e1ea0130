"""One table of everything that can go wrong with a request: kind -> HTTP status, gRPC code, whether to try again."""

from __future__ import annotations

import math
from dataclasses import dataclass

from configs.base import UserError


@dataclass(frozen=True, slots=True)
class ErrorKind:
    http_status: int
    grpc_code: str
    retryable: bool
    meaning: str


TABLE: dict[str, ErrorKind] = {
    "invalid_request": ErrorKind(400, "INVALID_ARGUMENT", False, "the request cannot be understood"),
    "unauthenticated": ErrorKind(401, "UNAUTHENTICATED", False, "no key, or a wrong one"),
    "not_found": ErrorKind(404, "NOT_FOUND", False, "no such policy or route"),
    "method_not_allowed": ErrorKind(405, "UNIMPLEMENTED", False, "the route exists, but not for this HTTP method"),
    "conflict": ErrorKind(409, "FAILED_PRECONDITION", False, "it contradicts what is served now"),
    "too_large": ErrorKind(413, "INVALID_ARGUMENT", False, "body, prompt or answer over its bound"),
    "deadline_exceeded": ErrorKind(408, "DEADLINE_EXCEEDED", True, "no answer within the deadline"),
    "cancelled": ErrorKind(499, "CANCELLED", False, "the caller left before the answer was ready"),
    "refused": ErrorKind(403, "PERMISSION_DENIED", False, "the model, or who runs it, declines to answer this"),
    "overloaded": ErrorKind(429, "RESOURCE_EXHAUSTED", True, "queue or rate limit is full"),
    "unavailable": ErrorKind(503, "UNAVAILABLE", True, "no replica is ready"),
    "stale_weights": ErrorKind(503, "UNAVAILABLE", True, "the replica could not fetch the weight version asked for"),
    "engine_failed": ErrorKind(503, "UNAVAILABLE", True, "the engine broke while it worked on the request"),
    "internal": ErrorKind(500, "INTERNAL", False, "a defect of the server"),
}
RETRY_AFTER_S = 1.0  # where nothing says when to try again


def kind_of_status(status: int) -> str:
    """The kind that an HTTP status stands for, the first in TABLE; other 4xx are `invalid_request`, other 5xx are
    `internal`."""
    known = next((kind for kind, entry in TABLE.items() if entry.http_status == status), None)
    return known or ("invalid_request" if 400 <= status < 500 else "internal")


class PolicyError(UserError):
    """A request failed; `kind` is a key of TABLE, classified where it happened (types get lost across pickling).

    `retry_after_s`: when to try again, where that is known. `rate_limit`: names and values of the `x-ratelimit-*`
    headers, where a limit per minute refused the request.
    """

    def __init__(
        self,
        kind: str,
        message: str,
        request_id: str = "",
        retry_after_s: float | None = None,
        rate_limit: tuple[tuple[str, str], ...] = (),
    ) -> None:
        if kind not in TABLE:
            raise KeyError(f"unknown error kind {kind!r}; known: {', '.join(TABLE)}")
        super().__init__(kind, message, request_id, retry_after_s, rate_limit)
        self.kind = kind
        self.message = message
        self.request_id = request_id
        self.retry_after_s = retry_after_s
        self.rate_limit = rate_limit

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"

    @property
    def retryable(self) -> bool:
        return TABLE[self.kind].retryable

    @property
    def http_status(self) -> int:
        return TABLE[self.kind].http_status

    def of_request(self, request_id: str) -> PolicyError:
        """The same failure under the id that the client gave."""
        return PolicyError(self.kind, self.message, request_id, self.retry_after_s, self.rate_limit)

    def headers(self) -> dict[str, str]:
        """What a client reads besides the body: `Retry-After` in whole seconds where it may pass later, and the state
        of the rate limit that refused it. As HTTP headers; gRPC takes them as trailing metadata, in small letters."""
        headers = dict(self.rate_limit)
        if self.retryable:
            wait_s = RETRY_AFTER_S if self.retry_after_s is None else self.retry_after_s
            headers["Retry-After"] = str(max(1, math.ceil(wait_s)))
        return headers

    def body(self) -> dict[str, str]:
        """The JSON body that a client sees; never a traceback."""
        return {
            "kind": self.kind,
            "message": self.message,
            "detail": self.message,
            "request_id": self.request_id,
        }


def grpc_failure(error: BaseException) -> PolicyError | None:
    """What an error of gRPC between two Serve processes means, None for any other exception.

    Read by its `code()`, without importing grpc. RESOURCE_EXHAUSTED is a message over gRPC's limit here: a full queue
    is Serve's BackPressureError.
    """
    code = getattr(error, "code", None)
    name = getattr(code(), "name", None) if callable(code) else None
    if name is None:
        return None
    if name == "RESOURCE_EXHAUSTED":
        return PolicyError("too_large", "the request or its answer is over the size of a message between processes")
    return PolicyError("unavailable", f"the call to the replica ended as {name}: try again")
