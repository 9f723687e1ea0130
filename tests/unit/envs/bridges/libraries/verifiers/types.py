from __future__ import annotations

from dataclasses import dataclass


@dataclass
class ResponseMessage:
    content: str
    finish_reason: str
    is_truncated: bool
    role: str = "assistant"


@dataclass
class Response:
    id: str
    created: int
    model: str
    message: ResponseMessage
