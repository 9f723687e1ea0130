"""Robot arms: `POST /act` in every spelling, `/reset`, `/health`, over real sockets, with a vision-language model."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx
import numpy as np
import pytest

pytestmark = pytest.mark.integration

Frame = np.ndarray[Any, np.dtype[np.uint8]]


def json_numpy(array: Frame, key: str = "__numpy__") -> dict[str, Any]:
    return {key: base64.b64encode(array.tobytes()).decode(), "dtype": "|u1", "shape": list(array.shape)}


def test_every_spelling_of_one_image_gives_the_same_seven_numbers(vision: httpx.Client, frame: Frame, png: str) -> None:
    spellings: list[Any] = [
        frame.tolist(), json_numpy(frame), json_numpy(frame, "__ndarray__"), png, f"data:image/png;base64,{png}",
    ]  # fmt: skip
    answers = []
    for number, image in enumerate(spellings):
        body = {"image": image, "instruction": "pick up the cup", "session_id": f"spelling-{number}"}
        answer = vision.post("/act", json=body)
        assert answer.status_code == 200, answer.text
        answers.append(answer.json())
    encoded = {"encoded": json.dumps({"image": json_numpy(frame), "instruction": "pick up the cup"})}
    told = json.loads(vision.post("/act", json=encoded, headers={"x-session-id": "encoded"}).json())
    answers.append(np.frombuffer(base64.b64decode(told["__numpy__"]), told["dtype"]).tolist())
    assert isinstance(answers[0], list)
    assert len(answers[0]) == 7
    assert all(isinstance(number, float) for number in answers[0])
    assert all(answer == answers[0] for answer in answers)


def test_a_guided_answer_parses(vision: httpx.Client, png: str) -> None:
    body = {"image": png, "instruction": "open the drawer", "session_id": "guided"}
    answer = vision.post("/act?format=dict", json=body, headers={"x-request-id": "guided-1"})
    told = answer.json()
    assert answer.headers.get_list("x-request-id") == ["guided-1"]
    assert (told["success"], told["parse_ok"], told["request_id"]) == (True, True, "guided-1")
    assert told["info"]["model"] == "vision"
    assert "{" in told["info"]["vlm_response"]
    assert len(told["action"]) == 7


def test_a_connection_test_is_seven_zeros_without_the_model(vision: httpx.Client, png: str) -> None:
    answer = vision.post("/act", json={"image": png, "instruction": "test connection"})
    assert answer.json() == [0.0] * 7


def test_a_test_shows_what_the_model_said(vision: httpx.Client, png: str) -> None:
    told = vision.post("/act", json={"image": png, "instruction": "go", "test": True}).json()
    assert set(told) == {"action", "vlm_response"}


def test_a_state_a_history_and_statistics_may_come_along(vision: httpx.Client, png: str) -> None:
    body = {
        "image": png,
        "instruction": "go on",
        "proprio": [0.1, 0.2, 0.3, 0.0, 0.0, 0.0, 0.0, 0.2],
        "history": {"steps": [{"images": [png], "description": "moved left"}]},
    }
    assert len(vision.post("/act", json=body).json()) == 7


@pytest.mark.parametrize("left_out", ["image", "instruction"])
def test_a_missing_field_is_answered_in_the_words_that_clients_know(
    vision: httpx.Client, png: str, left_out: str
) -> None:
    body = {"image": png, "instruction": "go"}
    del body[left_out]
    answer = vision.post("/act", json=body, headers={"x-request-id": "r9"})
    assert answer.status_code == 400
    assert answer.json()["detail"] == "Missing required fields: image and instruction"
    assert (answer.json()["kind"], answer.json()["request_id"]) == ("invalid_request", "r9")


def test_a_reset_says_so(vision: httpx.Client) -> None:
    answer = vision.post("/reset", headers={"x-session-id": "guided"})
    assert (answer.status_code, answer.json()) == (200, {"status": "reset successful"})


@pytest.mark.parametrize("path", ["/health", "/health/"])
def test_health_says_what_its_readers_look_for(vision: httpx.Client, path: str) -> None:
    assert vision.head(path).status_code == 200
    told = vision.get(path).json()
    assert (told["status"], told["ready"], told["model"], told["device"]) == ("healthy", True, "vision", "cpu")
    keys = {
        "timestamp",
        "service",
        "gpu_available",
        "rate_limits_configured",
        "concurrency_limit",
        "timeout",
        "version",
    }
    assert keys <= set(told)


def test_the_root_lists_name_model_status_and_endpoints(vision: httpx.Client) -> None:
    told = vision.get("/").json()
    assert {"name", "model", "status", "endpoints"} <= set(told)
    assert {"/act", "/reset", "/health"} <= set(told["endpoints"])


def test_the_same_model_chats_about_an_image(vision: httpx.Client, png: str) -> None:
    from openai import OpenAI

    client = OpenAI(base_url=f"{vision.base_url}v1", api_key="none", timeout=60, max_retries=0)
    content: Any = [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{png}"}},
        {"type": "text", "text": "What is it?"},
    ]
    whole = client.chat.completions.create(
        model="vision", messages=[{"role": "user", "content": content}], max_tokens=4
    )
    assert whole.usage is not None
    assert whole.usage.prompt_tokens > 4
