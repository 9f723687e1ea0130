"""Wire types of the token interface between a player of environments and a policy replica. No ray, torch or vllm."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

FinishReason = Literal["stop", "length", "abort"]

NEVER = -1e9  # bias of a banned token's logit: its probability is exactly 0 in float32, and 0 * log p a number
SEED_BOUND = 2**63  # seeds are signed 64-bit integers in the engine


def remaining_s(deadline_unix_s: float, now_unix_s: float) -> float:
    """Seconds from now until an absolute deadline; zero or less when it has passed.

    Both times are wall time (seconds since 1970), perhaps of two machines: their clocks must agree within a small part
    of the deadlines in use, as NTP keeps them. Time spent in any queue on the way counts, which no duration can say.
    """
    return deadline_unix_s - now_unix_s


@dataclass(frozen=True, slots=True)
class Sampling:
    """How one answer is sampled. `seed` makes it repeatable whatever else is in the batch."""

    temperature: float = 1.0
    max_tokens: int = 16
    top_p: float = 1.0
    top_k: int = 0  # 0: off
    min_p: float = 0.0
    seed: int | None = None
    stop_token_ids: tuple[int, ...] = ()
    banned_token_ids: tuple[int, ...] = ()
    regex: str | None = None  # constrain the answer to this grammar (renormalises log-probabilities)
    json_schema: dict[str, Any] | None = None
    ignore_eos: bool = False
    logprobs: bool = True  # False: the answer's `logprobs` are empty, which saves the engine some work
    text: bool = False  # True: the answer holds its text, too

    def __post_init__(self) -> None:
        """Raises ValueError. Types are checked, too: the engine decodes them in a thread that one wrong type ends."""
        if not _integer(self.max_tokens) or self.max_tokens < 1:
            raise ValueError(f"max_tokens must be an integer of at least 1, got {self.max_tokens!r}")
        for name in ("temperature", "top_p", "min_p"):
            if not _finite(getattr(self, name)):
                raise ValueError(f"{name} must be a finite number, got {getattr(self, name)!r}")
        if self.temperature < 0:
            raise ValueError(f"temperature must not be negative, got {self.temperature}")
        if not _integer(self.top_k):
            raise ValueError(f"top_k must be an integer, got {self.top_k!r}")
        if self.seed is not None and not (_integer(self.seed) and -SEED_BOUND <= self.seed < SEED_BOUND):
            raise ValueError(f"seed must be None or a 64-bit integer, got {self.seed!r}")
        for name in ("ignore_eos", "logprobs", "text"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be true or false, got {getattr(self, name)!r}")
        if not (self.regex is None or isinstance(self.regex, str)):
            raise ValueError(f"regex must be None or text, got {self.regex!r}")
        if not (self.json_schema is None or isinstance(self.json_schema, dict)):
            raise ValueError(f"json_schema must be None or a JSON object, got {self.json_schema!r}")
        for name in ("stop_token_ids", "banned_token_ids"):
            if not all(map(_integer, getattr(self, name))):
                raise ValueError(f"{name} must hold integers")


def _integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """Tokens in. `min_weight_version` is the oldest policy that may answer: a replica that is behind fetches first."""

    request_id: str
    token_ids: Sequence[int]
    sampling: Sampling = field(default_factory=Sampling)
    session_id: str | None = None
    min_weight_version: int = 0
    deadline_s: float = 60.0  # from arrival at the replica, if `deadline_unix_s` is not sooner
    deadline_unix_s: float | None = None  # wall time after which nobody waits; the client library sets it
    # [H, W, 3] each, in the order of their tokens in `token_ids`, where each has as many as the model makes of it
    images: tuple[NDArray[np.uint8], ...] = field(default=(), compare=False)

    def remaining_s(self, now_unix_s: float) -> float:
        """Seconds that the answer may still take, at most `deadline_s`; zero or less when nobody waits any more."""
        if self.deadline_unix_s is None:
            return self.deadline_s
        return min(self.deadline_s, remaining_s(self.deadline_unix_s, now_unix_s))


@dataclass(frozen=True, slots=True)
class GenerateResult:
    """Tokens out: `token_ids` [T] as sampled (the stop token included), `logprobs` [T] of these tokens under the
    sampling distribution, and the weight versions that produced them (equal unless an update fell in between). `text`
    without special tokens, where `Sampling.text` asked for it."""

    request_id: str
    token_ids: list[int]
    logprobs: list[float]
    weight_version: int  # the oldest that produced a token
    finish_reason: FinishReason
    weight_version_last: int = 0
    queue_ms: float = 0.0
    infer_ms: float = 0.0
    text: str = ""


@dataclass(frozen=True, slots=True)
class GeneratePiece:
    """Some text of an answer that is not complete yet. `weight_version`: the engine's when the answer began."""

    text: str
    weight_version: int


@dataclass(frozen=True, slots=True)
class GenerateFailure:
    """One request of a batch that got no answer; `kind` is a key of `errors.TABLE`."""

    request_id: str
    kind: str
    message: str
    retry_after_s: float | None = None  # when to try again, where that is known
    rate_limit: tuple[tuple[str, str], ...] = ()  # `x-ratelimit-*` of the limit that refused it: see PolicyError


class Generate(Protocol):
    """What a rollout needs of a policy: one request, one answer. Raises `errors.PolicyError`."""

    async def __call__(self, request: GenerateRequest) -> GenerateResult: ...
