"""A tiny Qwen2-VL in a real vLLM engine, asked through its replica: images in, guided answers out."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import numpy as np
import pytest

from deployments.errors import TABLE, PolicyError
from deployments.protocol.act import ChatRequest, ChatResult, ChatTurn

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("vision")]

SCHEMA: dict[str, object] = {
    "type": "object",
    "properties": {"direction": {"enum": ["left", "right"]}, "size": {"enum": [0.25, 0.5, 1.0]}},
    "required": ["direction", "size"],
    "additionalProperties": False,
}


def asked(name: str, *frames: Any, **changes: Any) -> ChatRequest:
    turns = [ChatTurn("system", "You drive."), ChatTurn("user", "Where to?", frames)]
    settings = {"turns": turns, "max_tokens": 64, "seed": 3, "json_schema": SCHEMA, **changes}
    return ChatRequest(name, deadline_unix_s=time.time() + 120.0, **settings)


def noise(seed: int, height: int = 90, width: int = 120) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def test_images_in_and_an_answer_that_parses_out() -> None:
    from ray import serve

    from deployments.client.chat import ServeChat

    async def run() -> list[Any]:
        chat = ServeChat(serve.get_deployment_handle("vision", "vision"))
        alone = await chat(asked("alone", noise(0)))
        crowd = await asyncio.gather(
            chat(asked("again", noise(0))),
            chat(asked("history", noise(0), noise(1))),
            chat(asked("free", noise(1), json_schema=None, temperature=0.0)),
            chat(asked("other", noise(2), json_schema=None, temperature=0.0)),
            chat(asked("text only")),
            chat(asked("nine", *(noise(seed) for seed in range(9)))),
            chat(asked("long", noise(0), turns=[ChatTurn("user", "x" * 9000)])),
            return_exceptions=True,
        )
        return [alone, *crowd]

    alone, again, history, free, other, text_only, nine, long = asyncio.run(run())
    for answer in (alone, again, history, text_only):
        assert isinstance(answer, ChatResult), answer
        told = json.loads(answer.text)
        assert told["direction"] in ("left", "right")
        assert told["size"] in (0.25, 0.5, 1.0)
    assert alone.text == again.text, "a seeded answer depends on nothing but its question"
    assert isinstance(free, ChatResult)
    assert isinstance(other, ChatResult)
    assert free.text != other.text, "the model sees the image"
    for refused in (nine, long):
        assert isinstance(refused, PolicyError)
        assert TABLE[refused.kind].http_status in (400, 413)
