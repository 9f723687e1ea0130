"""Wire types of the token interface between a player of environments and a policy replica. No ray, torch or vllm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

FinishReason = Literal["stop", "length", "abort"]


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

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens must be at least 1, got {self.max_tokens}")
        if self.temperature < 0:
            raise ValueError(f"temperature must not be negative, got {self.temperature}")


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """Tokens in. `min_weight_version` is the oldest policy that may answer: a replica that is behind fetches first."""

    request_id: str
    token_ids: Sequence[int]
    sampling: Sampling = field(default_factory=Sampling)
    session_id: str | None = None
    min_weight_version: int = 0
    deadline_s: float = 60.0  # from arrival at the replica


@dataclass(frozen=True, slots=True)
class GenerateResult:
    """Tokens out: `token_ids` [T] as sampled (the stop token included), `logprobs` [T] of these tokens under the
    sampling distribution, and the weight versions that produced them (equal unless an update fell in between)."""

    request_id: str
    token_ids: list[int]
    logprobs: list[float]
    weight_version: int  # the oldest that produced a token
    finish_reason: FinishReason
    weight_version_last: int = 0
    queue_ms: float = 0.0
    infer_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class GenerateFailure:
    """One request of a batch that got no answer; `kind` is a key of `errors.TABLE`."""

    request_id: str
    kind: str
    message: str


class Generate(Protocol):
    """What a rollout needs of a policy: one request, one answer. Raises `errors.PolicyError`."""

    async def __call__(self, request: GenerateRequest) -> GenerateResult: ...
