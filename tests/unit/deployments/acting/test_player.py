"""A player's questions to its model, and what comes of the answers."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from configs.acting import ActConfig, GameConfig
from deployments.acting.counts import Counts
from deployments.acting.player import Player
from deployments.errors import PolicyError
from deployments.protocol.act import ChatRequest, ChatResult
from deployments.protocol.game import PlayRequest, PlayStep, no_op

STEPS = [PlayStep(np.full((2, 2, 3), shade, np.uint8), no_op()) for shade in range(8)]
REQUEST = PlayRequest("7", "game", 1e12, "MineRLBasaltFindCave-v0", STEPS, step=41, temperature=0.1, max_tokens=99)


class Model:
    """Says `text`; keeps what it was asked."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.asked: list[ChatRequest] = []

    async def __call__(self, request: ChatRequest) -> ChatResult:
        self.asked.append(request)
        return ChatResult(self.text, weight_version=3, queue_ms=1.0, infer_ms=2.0)


def player(model: Model, counts: Counts | None = None, **config: int) -> Player:
    return Player("minecraft", GameConfig(), ActConfig(**config), model, counts or Counts())


async def test_the_newest_frames_are_shown_and_the_clients_sampling_is_used() -> None:
    model = Model(json.dumps({"reasoning": "a hole", "action": {"use": 1}}))
    result = await player(model).infer(REQUEST)

    assert (result.action, result.reasoning, result.step, result.parse_ok) == (no_op() | {"use": 1}, "a hole", 41, True)
    assert (result.weight_version, result.queue_ms, result.infer_ms) == (3, 1.0, 2.0)
    asked = model.asked[0]
    assert [int(turn.images[0][0, 0, 0]) for turn in asked.turns if turn.images] == [3, 4, 5, 6, 7]
    assert (asked.temperature, asked.max_tokens, asked.deadline_unix_s) == (0.1, 99, 1e12)
    assert asked.json_schema is not None


async def test_no_more_frames_are_shown_than_the_policy_takes() -> None:
    model = Model("{}")
    await player(model, max_images=2).infer(REQUEST)

    assert sum(len(turn.images) for turn in model.asked[0].turns) == 2


async def test_an_answer_that_cannot_be_read_is_the_no_op_and_is_counted() -> None:
    counts = Counts()
    result = await player(Model("I'd rather not."), counts).infer(REQUEST)

    assert (result.action, result.parse_ok) == (no_op(), False)
    assert "could not be read" in result.reasoning
    assert counts.unreadable == {("minecraft", "play"): 1}


async def test_two_games_that_count_their_requests_alike_are_told_apart_by_the_engine() -> None:
    model = Model("{}")
    asks = player(model)
    await asks.infer(REQUEST)
    await asks.infer(REQUEST)

    assert len({asked.request_id for asked in model.asked}) == 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"steps": []}, "Either 'image' or 'history'"),
        ({"task": "Fly"}, "unknown task"),
        ({"temperature": math.nan}, "temperature must be in 0..2"),
        ({"temperature": -0.1}, "temperature must be in 0..2"),
        ({"max_tokens": 0}, "at least 1"),
        ({"max_history_length": 0}, "at least 1"),
    ],
)
def test_what_cannot_be_answered_is_refused_before_the_model_is_asked(changes: dict[str, object], words: str) -> None:
    player(Model("")).check(REQUEST)
    with pytest.raises(PolicyError, match=words) as refusal:
        player(Model("")).check(replace(REQUEST, **changes))  # type: ignore[arg-type]
    assert refusal.value.kind == "invalid_request"
