"""Wire types of a plain text answer between the HTTP ingress and a policy replica. No ray, torch or vllm."""

from __future__ import annotations

from dataclasses import dataclass, field

from deployments.protocol.act import ChatTurn
from deployments.protocol.generate import FinishReason, GenerateFailure, GeneratePiece, Sampling, remaining_s


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """One prompt: text, token ids [T], or a conversation without images that is to be continued. `stream`: the text is
    wanted in pieces, as it comes. `as_fits`: an answer shorter than `sampling.max_tokens` will do, where the context
    leaves no more. See `GenerateRequest` for the two deadlines."""

    request_id: str
    prompt: str | list[int] | tuple[ChatTurn, ...]
    sampling: Sampling = field(default_factory=Sampling)
    stream: bool = False
    as_fits: bool = False
    min_weight_version: int = 0
    deadline_s: float = 60.0
    deadline_unix_s: float | None = None

    def remaining_s(self, now_unix_s: float) -> float:
        """As of a GenerateRequest."""
        if self.deadline_unix_s is None:
            return self.deadline_s
        return min(self.deadline_s, remaining_s(self.deadline_unix_s, now_unix_s))

    @property
    def size_bytes(self) -> int:
        """About what the prompt takes on the wire: at most 4 bytes per character, 5 per token."""
        match self.prompt:
            case str():
                return 4 * len(self.prompt)
            case list():
                return 5 * len(self.prompt)
        return sum(4 * len(turn.text) for turn in self.prompt)


@dataclass(frozen=True, slots=True)
class Completion:
    """The whole answer as text, also where it was sent in pieces before. `weight_version` is the oldest that produced a
    token."""

    request_id: str
    text: str
    finish_reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    weight_version: int


CompletionAnswer = Completion | GenerateFailure
CompletionPart = GeneratePiece | CompletionAnswer  # any number of pieces, and then the answer
