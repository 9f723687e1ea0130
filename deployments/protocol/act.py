"""Wire types of one decision of a policy that acts: an observation in, actions out. numpy only; no ray, torch, grpc."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from deployments.protocol.generate import GenerateFailure, remaining_s

Frame = NDArray[np.uint8]  # [H, W, 3], RGB, C-contiguous; whatever a client sent becomes this before anything else
Vector = NDArray[np.float32]  # [D]
Actions = NDArray[np.float32]  # [horizon, D], in the robot's own units


@dataclass(frozen=True, slots=True)
class Observation:
    """What the robot or the player sees now, the same whatever dialect carried it.

    `images`: one frame per camera, None for a camera that sent nothing. `state`: joint positions or the like, in the
    robot's own units. `taken_unix_s`: wall time at which it was taken, by the sender's clock; None when it did not say.
    """

    images: tuple[Frame | None, ...] = ()
    instruction: str = ""
    state: Vector | None = None
    taken_unix_s: float | None = None


@dataclass(frozen=True, slots=True)
class Committed:
    """Real-time chunking: `actions` [P, D] that the robot will have sent before the answer comes, of which the first
    `delay` are frozen: the new chunk begins with them. Un-normalised; 0 <= delay <= P."""

    actions: Actions
    delay: int


@dataclass(frozen=True, slots=True)
class ActRequest:
    """One question to a policy that acts.

    `session_id`: whose history this is (a client's own name, or its connection). `deadline_unix_s`: wall time after
    which nobody waits. `noise_seed`: fixes what a sampling policy draws; None: it draws anew. `statistics`: name of the
    action statistics, None for the policy's default.
    """

    request_id: str
    observation: Observation
    session_id: str
    deadline_unix_s: float
    committed: Committed | None = None
    noise_seed: int | None = None
    statistics: str | None = None
    min_weight_version: int = 0

    def remaining_s(self, now_unix_s: float) -> float:
        """Seconds until the deadline; zero or less when it has passed."""
        return remaining_s(self.deadline_unix_s, now_unix_s)


# What happened to an answer on its way out; each one is counted, too.
Intervention = Literal["clipped", "slowed", "workspace", "not_finite", "held", "no_op", "unparsed"]


@dataclass(frozen=True, slots=True)
class ActResult:
    """What a policy answered. `actions` are finite and within the configured bounds.

    `text`: what a language policy said; empty for others. `parse_ok`: False when `text` could not be read, and the
    actions are the fallback. `observation_age_ms`: from `taken_unix_s` (or arrival) to the answer.
    """

    request_id: str
    actions: Actions
    weight_version: int
    text: str = ""
    parse_ok: bool = True
    interventions: tuple[Intervention, ...] = ()
    queue_ms: float = 0.0
    infer_ms: float = 0.0
    total_ms: float = 0.0
    observation_age_ms: float = 0.0


ActAnswer = ActResult | GenerateFailure


@dataclass(frozen=True, slots=True)
class ChunkRequest:
    """What a chunk engine gets: an ActRequest whose frames have the policy's resolution.

    `images` [cameras, H, W, 3] uint8 with `image_mask` [cameras] (False: a padded camera), `state` [D] un-normalised.
    """

    request_id: str
    images: NDArray[np.uint8]
    image_mask: NDArray[np.bool_]
    state: Vector
    prompt: str
    committed: Committed | None = None
    noise_seed: int | None = None
    statistics: str | None = None
    min_weight_version: int = 0
    deadline_s: float = 60.0
    deadline_unix_s: float | None = None

    def remaining_s(self, now_unix_s: float) -> float:
        """Seconds that the answer may still take; zero or less when nobody waits any more."""
        if self.deadline_unix_s is None:
            return self.deadline_s
        return min(self.deadline_s, remaining_s(self.deadline_unix_s, now_unix_s))


@dataclass(frozen=True, slots=True)
class ChunkResult:
    """`actions` [horizon, D], un-normalised, as the model gave them: nothing is bounded yet."""

    request_id: str
    actions: Actions
    weight_version: int
    queue_ms: float = 0.0
    infer_ms: float = 0.0


ChunkAnswer = ChunkResult | GenerateFailure


@dataclass(frozen=True, slots=True)
class ChatTurn:
    """One message to a vision-language policy; the frames stand before the text."""

    role: Literal["system", "user", "assistant"]
    text: str
    images: tuple[Frame, ...] = ()


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A conversation to be continued. `json_schema`: the answer must parse as this, where the engine can enforce it.
    `deadline_s`: seconds that are left on arrival at a replica, which sets it."""

    request_id: str
    turns: Sequence[ChatTurn]
    deadline_unix_s: float
    temperature: float = 0.7
    max_tokens: int = 512
    seed: int | None = None
    json_schema: dict[str, object] | None = field(default=None)
    min_weight_version: int = 0
    deadline_s: float = math.inf

    def remaining_s(self, now_unix_s: float) -> float:
        """Seconds that the answer may still take; zero or less when nobody waits any more."""
        return min(self.deadline_s, remaining_s(self.deadline_unix_s, now_unix_s))

    @property
    def size_bytes(self) -> int:
        """About what the request takes on the wire."""
        return sum(4 * len(turn.text) + sum(frame.nbytes for frame in turn.images) for turn in self.turns)


@dataclass(frozen=True, slots=True)
class ChatResult:
    text: str
    weight_version: int
    queue_ms: float = 0.0
    infer_ms: float = 0.0


ChatAnswer = ChatResult | GenerateFailure


class Chat(Protocol):
    """How a vision-language policy is asked, wherever it runs: our own engine or a provider. Raises PolicyError."""

    async def __call__(self, request: ChatRequest) -> ChatResult: ...


class Act(Protocol):
    """One policy that acts, as the transports call it. Raises PolicyError."""

    async def __call__(self, request: ActRequest) -> ActResult: ...
