"""MineRL players: `POST /get_action` over real sockets and with a real vision-language model."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.integration

TASK = "MineRLBasaltFindCave-v0"
BUTTONS = {
    "attack", "back", "forward", "jump", "left", "right", "sneak", "sprint", "use", "drop", "inventory", "ESC",
    *(f"hotbar.{slot}" for slot in range(1, 10)),
}  # fmt: skip


def check_action(action: dict[str, Any]) -> None:
    assert set(action) == BUTTONS | {"camera"}
    assert all(action[button] in (0, 1) and isinstance(action[button], int) for button in BUTTONS)
    pitch, yaw = action["camera"]
    assert -180 <= pitch <= 180
    assert -180 <= yaw <= 180


@pytest.mark.parametrize(
    "task", ["FindCave", "MakeWaterfall", "CreateVillageAnimalPen", "BuildVillageHouse"], ids=lambda task: task
)
def test_each_task_is_answered_by_an_action_with_every_key(vision: httpx.Client, png: str, task: str) -> None:
    body = {"task_name": f"MineRLBasalt{task}-v0", "image": {"data": png}, "step": 17, "max_tokens": 700}
    answer = vision.post("/get_action", json=body)
    told = answer.json()
    assert answer.status_code == 200, answer.text
    assert {"action", "reasoning", "step", "parse_ok"} <= set(told)
    assert told["step"] == 17
    check_action(told["action"])


def test_a_history_wins_over_the_image(vision: httpx.Client, png: str) -> None:
    steps = [{"image": {"data": png}, "action": {"forward": 1}}, {"image": {"data": png}, "action": None}]
    answer = vision.post(
        "/get_action", json={"task_name": TASK, "history": steps, "image": {"data": "broken"}, "max_tokens": 700}
    )
    assert answer.status_code == 200, answer.text
    check_action(answer.json()["action"])


def test_an_answer_that_cannot_be_read_is_the_no_op_and_says_so(vision: httpx.Client, png: str) -> None:
    body = {"task_name": TASK, "image": {"data": png}, "max_tokens": 16}
    told = vision.post("/get_action", json=body).json()
    assert told["parse_ok"] is False
    assert all(told["action"][button] == 0 for button in BUTTONS)
    assert told["action"]["camera"] == [0.0, 0.0]


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({}, "Either 'image' or 'history' must be provided"),
        ({"image": {"data": "AAAA"}}, "Invalid image data: "),
    ],
)
def test_what_cannot_be_decided_is_refused_in_the_words_that_clients_know(
    vision: httpx.Client, changes: dict[str, Any], detail: str
) -> None:
    answer = vision.post("/get_action", json={"task_name": TASK, **changes})
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith(detail)
