"""A conversation in vLLM's terms."""

from __future__ import annotations

import numpy as np
import pytest

from deployments.engines.vllm.chat import messages, sampling
from deployments.errors import PolicyError
from deployments.protocol.act import ChatRequest, ChatTurn


def test_frames_stand_before_the_text_and_a_turn_without_frames_is_plain_text() -> None:
    frame = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)

    system, user = messages([ChatTurn("system", "You drive."), ChatTurn("user", "What now?", (frame, frame))])

    assert system == {"role": "system", "content": "You drive."}
    assert [part["type"] for part in user["content"]] == ["image_pil", "image_pil", "text"]
    assert np.array_equal(np.asarray(user["content"][0]["image_pil"]), frame)


def test_an_answer_is_cut_to_what_the_context_leaves() -> None:
    request = ChatRequest("r", [ChatTurn("user", "?")], 0.0, max_tokens=512, seed=3, json_schema={"type": "object"})

    asked = sampling(request, prompt_tokens=1000, max_model_len=1024)

    assert (asked.max_tokens, asked.seed) == (24, 3)
    assert asked.structured_outputs is not None
    assert asked.structured_outputs.json == {"type": "object"}


def test_a_conversation_that_fills_the_context_is_refused_by_its_size() -> None:
    request = ChatRequest("r", [ChatTurn("user", "?")], 0.0)

    with pytest.raises(PolicyError, match=r"takes 1024 tokens, images included, and engine.max_model_len is 1024"):
        sampling(request, prompt_tokens=1024, max_model_len=1024)
