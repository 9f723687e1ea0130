"""A tiny Qwen2-VL in a real vLLM engine: images in, guided answers out."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deployments.errors import TABLE
from deployments.protocol.act import ChatRequest, ChatResult, ChatTurn
from deployments.protocol.generate import GenerateFailure

pytestmark = pytest.mark.integration

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


def test_images_in_and_an_answer_that_parses_out(tmp_path: Path) -> None:
    from configs.acting import ActConfig, GameConfig
    from configs.policies import PolicyConfig
    from configs.replicas import EngineConfig
    from deployments.engines.vllm import tiny
    from deployments.engines.vllm.engine import VllmEngine

    limits = EngineConfig(device="cpu", max_model_len=1024, max_num_seqs=8, cpu_kv_cache_gib=0.125, max_images=2)
    acts = ActConfig(game=GameConfig(), max_images=2)
    engine = VllmEngine(PolicyConfig(model=tiny.made("tiny:vision", tmp_path), engine=limits, act=acts))

    async def run() -> list[Any]:
        await engine.load()
        try:
            alone = await engine.chat(asked("alone", noise(0)))
            crowd = await asyncio.gather(
                engine.chat(asked("again", noise(0))),
                engine.chat(asked("history", noise(0), noise(1))),
                engine.chat(asked("free", noise(1), json_schema=None, temperature=0.0)),
                engine.chat(asked("other", noise(2), json_schema=None, temperature=0.0)),
                engine.chat(asked("text only")),
                engine.chat(asked("three", noise(0), noise(1), noise(2))),
                engine.chat(asked("long", noise(0), turns=[ChatTurn("user", "x" * 2000)])),
            )
            return [alone, *crowd, engine.unfinished()]
        finally:
            await engine.close()

    alone, again, history, free, other, text_only, three, long, unfinished = asyncio.run(run())
    for answer in (alone, again, history, text_only):
        assert isinstance(answer, ChatResult), answer
        told = json.loads(answer.text)
        assert told["direction"] in ("left", "right")
        assert told["size"] in (0.25, 0.5, 1.0)
    assert alone.text == again.text, "a seeded answer depends on nothing but its question"
    assert isinstance(free, ChatResult)
    assert isinstance(other, ChatResult)
    assert free.text != other.text, "the model sees the image"
    for refused in (three, long):
        assert isinstance(refused, GenerateFailure)
        assert TABLE[refused.kind].http_status in (400, 413)
    assert unfinished == 0
