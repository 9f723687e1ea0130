"""The frames of a growing history go through the model's processor once each: vLLM finds them again by their content.

vLLM's own renderer around a tiny Qwen2-VL, as the engine has it; no engine is started.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from configs.replicas import EngineConfig
from deployments.engines.vllm import chat, tiny
from deployments.engines.vllm.settings import engine_arguments, process_environment
from deployments.protocol.act import ChatTurn, Frame


class Processed:
    """A renderer, and how many images its model's own processor has worked on."""

    def __init__(self, config: EngineConfig, model: str) -> None:
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.renderers.registry import renderer_from_config

        settings = AsyncEngineArgs(**engine_arguments(config, model, weight_updates=False)).create_engine_config()
        self._llm: Any = SimpleNamespace(renderer=renderer_from_config(settings))
        self.images = 0
        processor = self._llm.renderer.mm_processor
        apply = processor._apply_hf_processor_main

        def counted(*arguments: Any, **named: Any) -> Any:
            items = named.get("mm_items", arguments[1] if len(arguments) > 1 else None)
            self.images += sum(items.get_all_counts().values())
            return apply(*arguments, **named)

        processor._apply_hf_processor_main = counted

    async def look(self, *frames: Frame) -> None:
        turns = [ChatTurn("user", f"At step {step}.", (frame,)) for step, frame in enumerate(frames)]
        await chat.rendered(self._llm, turns)

    def close(self) -> None:
        self._llm.renderer.shutdown()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny.made("tiny:vision", tmp_path_factory.mktemp("models"))


@pytest.fixture
def start(model: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    opened: list[Processed] = []

    def started(image_cache_gib: float) -> Processed:
        config = EngineConfig(device="cpu", cpu_kv_cache_gib=0.125, max_images=4, image_cache_gib=image_cache_gib)
        for name, value in process_environment(config).items():
            monkeypatch.setenv(name, value)
        opened.append(Processed(config, model))
        return opened[0]

    yield started
    for each in opened:
        each.close()


def noise(seed: int) -> Frame:
    return np.random.default_rng(seed).integers(0, 256, (56, 84, 3), np.uint8)


@pytest.mark.parametrize(("image_cache_gib", "processed"), [(0.125, [1, 1, 2, 3]), (0.0, [1, 2, 4, 7])])
async def test_a_frame_of_a_history_is_processed_once_where_there_is_memory_for_it(
    start: Any, image_cache_gib: float, processed: list[int]
) -> None:
    renderer = start(image_cache_gib)
    seen = []

    for history in ([0], [0], [0, 1], [0, 1, 2]):
        await renderer.look(*map(noise, history))  # other arrays each time, with the same content
        seen.append(renderer.images)

    assert seen == processed
