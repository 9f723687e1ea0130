"""Wire types of one HTTP exchange that the ingress forwards to vLLM's own routes in a replica."""

from __future__ import annotations

from dataclasses import dataclass

from deployments.protocol.generate import GenerateFailure, remaining_s


@dataclass(frozen=True, slots=True)
class HttpCall:
    """One request as the client sent it; header names and values are Latin-1 text.

    `deadline_unix_s`: wall time (seconds since 1970) after which nobody waits for the answer.
    """

    request_id: str
    method: str
    path: str
    query: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    deadline_unix_s: float
    min_weight_version: int = 0

    def remaining_s(self, now_unix_s: float) -> float:
        """Seconds until the deadline; zero or less when it has passed."""
        return remaining_s(self.deadline_unix_s, now_unix_s)


@dataclass(frozen=True, slots=True)
class HttpHead:
    """The first piece of an answer. `weight_version`: the engine's when the answer began."""

    status: int
    headers: tuple[tuple[str, str], ...]
    weight_version: int


# What a replica streams: one head and then the body in pieces, or one failure and nothing else. A failure after the
# head says that the answer broke off.
HttpPiece = HttpHead | bytes | GenerateFailure
