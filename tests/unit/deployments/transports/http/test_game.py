"""`POST /get_action` as MineRL's clients send it, around a player that notes what it is asked."""

from __future__ import annotations

import base64
import io
from collections.abc import AsyncIterator
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import Response
from PIL import Image

from configs.serving import ServeConfig
from deployments.errors import PolicyError
from deployments.protocol.game import PlayRequest, PlayResult, no_op
from deployments.transports.http.answers import answer_failures
from deployments.transports.http.game import get_action
from deployments.transports.policies import ServedPolicies

TASK = "MineRLBasaltFindCave-v0"


class Player:
    def __init__(self) -> None:
        self.asked: list[tuple[str | None, PlayRequest]] = []
        self.failure: PolicyError | None = None

    async def play(self, policy: str | None, request: PlayRequest) -> PlayResult:
        self.asked.append((policy, request))
        if self.failure is not None:
            raise self.failure
        action = no_op() | {"jump": 1, "camera": [10.0, -20.0]}
        return PlayResult(request.request_id, action, "It's dark.", request.step, weight_version=3)


@pytest.fixture
def player() -> Player:
    return Player()


@pytest.fixture
async def client(player: Player) -> AsyncIterator[httpx.AsyncClient]:
    game = {"name": "game", "model": "m", "act": {"game": {}, "max_images": 3}}
    served = ServedPolicies(ServeConfig.parse({"policies": [{"name": "text", "model": "m"}, game]}))
    api = FastAPI()
    answer_failures(api)

    @api.post("/get_action")
    async def _get_action(request: Request) -> Response:
        return await get_action(player, request, served)

    transport = httpx.ASGITransport(app=api)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as opened:
        yield opened


def frame(value: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.full((8, 8, 3), value, np.uint8)


def image(value: int) -> dict[str, str]:
    written = io.BytesIO()
    Image.fromarray(frame(value)).save(written, "PNG")
    return {"data": base64.b64encode(written.getvalue()).decode()}


async def test_one_image_is_answered_by_an_action_with_every_key(client: httpx.AsyncClient, player: Player) -> None:
    answer = await client.post("/get_action", json={"task_name": TASK, "image": image(5), "step": 12})
    told = answer.json()
    assert answer.status_code == 200
    assert (told["reasoning"], told["step"], told["parse_ok"]) == ("It's dark.", 12, True)
    assert set(told["action"]) == set(no_op())
    assert (told["action"]["jump"], told["action"]["camera"]) == (1, [10.0, -20.0])
    [(name, asked)] = player.asked
    assert (name, asked.task, asked.temperature, asked.max_tokens, asked.max_history_length) == (
        "game",
        TASK,
        0.7,
        512,
        5,
    )
    assert np.array_equal(asked.steps[0].frame, frame(5))
    assert answer.headers["x-weight-version"] == "3"


async def test_a_history_wins_and_its_last_frames_are_kept_with_what_was_done(
    client: httpx.AsyncClient, player: Player
) -> None:
    steps = [{"image": image(i), "action": {"jump": 1, "camera": [1, 2], "unknown": 9}} for i in range(5)]
    steps[-1]["action"] = None
    body = {"task_name": TASK, "image": image(99), "history": steps, "max_history_length": 2}
    await client.post("/get_action", json=body)
    [(_, asked)] = player.asked
    assert [step.frame[0, 0, 0] for step in asked.steps] == [3, 4]
    assert asked.steps[0].action == no_op() | {"jump": 1, "camera": [1.0, 2.0]}
    assert asked.steps[1].action is None


async def test_no_more_frames_are_decoded_than_the_policy_takes(client: httpx.AsyncClient, player: Player) -> None:
    steps = [{"image": {"data": "old and broken"}, "action": None}] * 50 + [{"image": image(i)} for i in range(3)]
    body = {"task_name": TASK, "history": steps, "max_history_length": 1000}
    assert (await client.post("/get_action", json=body)).status_code == 200
    assert len(player.asked[0][1].steps) == 3


@pytest.mark.parametrize("nothing", [{}, {"image": None}, {"history": []}, {"image": None, "history": None}])
async def test_nothing_to_see_is_refused_in_the_words_that_clients_know(
    client: httpx.AsyncClient, nothing: dict[str, Any]
) -> None:
    answer = await client.post("/get_action", json={"task_name": TASK, **nothing})
    assert (answer.status_code, answer.json()["detail"]) == (400, "Either 'image' or 'history' must be provided")


async def test_a_broken_image_is_refused_in_the_words_that_clients_know(client: httpx.AsyncClient) -> None:
    answer = await client.post("/get_action", json={"task_name": TASK, "image": {"data": "AAAA"}})
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith("Invalid image data: ")


@pytest.mark.parametrize(
    "action", [{"jump": 2}, {"jump": "1"}, {"camera": [1]}, {"camera": "up"}, {"camera": ["a", "b"]}]
)
async def test_an_action_that_no_player_took_is_refused(client: httpx.AsyncClient, action: dict[str, Any]) -> None:
    body = {"task_name": TASK, "history": [{"image": image(1), "action": action}, {"image": image(2)}]}
    answer = await client.post("/get_action", json=body)
    assert (answer.status_code, answer.json()["kind"]) == (400, "invalid_request")
    assert next(iter(action)) in answer.json()["message"]


async def test_a_task_is_required(client: httpx.AsyncClient) -> None:
    answer = await client.post("/get_action", json={"image": image(1)})
    assert (answer.status_code, answer.json()["kind"]) == (400, "invalid_request")
    assert "task_name" in answer.json()["message"]


async def test_a_model_that_is_not_loaded_is_503(client: httpx.AsyncClient, player: Player) -> None:
    player.failure = PolicyError("unavailable", "no replica is ready")
    assert (await client.post("/get_action", json={"task_name": TASK, "image": image(1)})).status_code == 503
