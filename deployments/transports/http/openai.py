"""The plain completion of the OpenAI API: what takes the short way to the engine."""

from __future__ import annotations

import time
import uuid
from typing import Any

# A completion with only these keys takes the short way (batched, without vLLM's HTTP layer).
PLAIN_KEYS = {"model", "prompt", "max_tokens", "temperature", "top_p", "seed", "stream", "n", "ignore_eos", "user"}


def plain_completion(payload: dict[str, Any], request_id: str) -> dict[str, Any] | None:
    """The payload with defaults when it takes the short way, None when vLLM's own route must answer it."""
    if not payload.keys() <= PLAIN_KEYS or payload.get("stream") or payload.get("n", 1) != 1:
        return None
    prompt = payload.get("prompt")
    if not isinstance(prompt, str) and not (
        isinstance(prompt, list) and prompt and all(type(token) is int for token in prompt)
    ):
        return None
    values = {
        "max_tokens": payload.get("max_tokens", 16),
        "temperature": payload.get("temperature", 1.0),
        "top_p": payload.get("top_p", 1.0),
        "seed": payload.get("seed"),
        "ignore_eos": payload.get("ignore_eos", False),
    }
    if type(values["max_tokens"]) is not int or values["max_tokens"] < 1 or not prompt:
        return None
    if not all(isinstance(values[key], int | float) and values[key] >= 0 for key in ("temperature", "top_p")):
        return None
    if not (values["seed"] is None or type(values["seed"]) is int) or not 0 < values["top_p"] <= 1:
        return None
    return values | {"prompt": prompt, "request_id": f"cmpl-{request_id}-{uuid.uuid4().hex[:8]}"}


def completion_body(answer: dict[str, Any], model: str, request_id: str) -> dict[str, Any]:
    prompt, completion = answer["prompt_tokens"], answer["completion_tokens"]
    choice = {"index": 0, "text": answer["text"], "logprobs": None, "finish_reason": answer["finish_reason"]}
    return {
        "id": f"cmpl-{request_id}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": model,
        "choices": [choice],
        "usage": {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion},
        "weight_version": answer["weight_version"],
    }
