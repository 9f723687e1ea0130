"""`POST /act` and `/reset` as the clients of robot arms spell them, around a policy that notes what it is asked."""

from __future__ import annotations

import asyncio
import base64
import io
import json
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
from deployments.protocol.act import ActRequest, ActResult
from deployments.transports.http.act import act, json_numpy, reset
from deployments.transports.http.answers import answer_failures
from deployments.transports.policies import ServedPolicies

ACTION = np.array([0.25, -0.5, 0.0, 0.0, 0.125, 0.0, 1.0], np.float32)
FRAME = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
POLICIES = [
    {"name": "text", "model": "m"},
    {"name": "arm", "model": "m", "request_deadline_s": 30.0, "act": {"arm": {}, "max_images": 4}},
    {"name": "robot", "kind": "chunks", "checkpoint": "c", "request_deadline_s": 5.0},
]


class Policy:
    """Answers every question with ACTION, two steps of it."""

    def __init__(self) -> None:
        self.asked: list[tuple[str | None, ActRequest]] = []
        self.reset_sessions: list[tuple[str | None, str]] = []
        self.failure: PolicyError | None = None
        self.answering = asyncio.Event()
        self.answering.set()

    async def act(self, policy: str | None, request: ActRequest) -> ActResult:
        self.asked.append((policy, request))
        await self.answering.wait()
        if self.failure is not None:
            raise self.failure
        return ActResult(
            request.request_id,
            np.stack([ACTION, 2 * ACTION]),
            weight_version=7,
            text="I move.",
            parse_ok=False,
            interventions=("clipped", "unparsed"),
            observation_age_ms=12.5,
        )

    async def reset(self, policy: str | None, session_id: str) -> None:
        self.reset_sessions.append((policy, session_id))


@pytest.fixture
def policy() -> Policy:
    return Policy()


@pytest.fixture
async def client(policy: Policy) -> AsyncIterator[httpx.AsyncClient]:
    limits = {"max_body_bytes": 100_000, "max_json_values": 20_000}
    served = ServedPolicies(ServeConfig.parse({"policies": POLICIES, **limits}))
    api = FastAPI()
    answer_failures(api)

    @api.post("/act")
    @api.post("/policies/{name}/act")
    async def _act(request: Request) -> Response:
        return await act(policy, request, served)

    @api.post("/reset")
    async def _reset(request: Request) -> Response:
        return await reset(policy, request, served)

    transport = httpx.ASGITransport(app=api)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as opened:
        yield opened


def png(frame: np.ndarray[Any, Any] = FRAME) -> str:
    written = io.BytesIO()
    Image.fromarray(frame).save(written, "PNG")
    return base64.b64encode(written.getvalue()).decode()


def body(**changes: Any) -> dict[str, Any]:
    return {"image": FRAME.tolist(), "instruction": "pick up the cup", "model": "arm", **changes}


SPELLINGS = {
    "nested list": FRAME.tolist(),
    "json_numpy": json_numpy(FRAME),
    "json_numpy, the other key": {**json_numpy(FRAME), "__ndarray__": json_numpy(FRAME)["__numpy__"]},
    "base64 PNG": png(),
    "data URI": f"data:image/png;base64,{png()}",
}


@pytest.mark.parametrize("image", SPELLINGS.values(), ids=SPELLINGS.keys())
async def test_every_spelling_of_an_image_gives_the_same_frame_and_a_bare_list(
    client: httpx.AsyncClient, policy: Policy, image: Any
) -> None:
    answer = await client.post("/act", json=body(image=image))
    assert (answer.status_code, answer.json()) == (200, ACTION.tolist())
    [(name, asked)] = policy.asked
    [frame] = asked.observation.images
    assert name == "arm"
    assert frame is not None
    assert np.array_equal(frame, FRAME)
    assert asked.observation.instruction == "pick up the cup"


async def test_a_whole_body_in_a_string_is_answered_by_an_array_in_a_string(
    client: httpx.AsyncClient, policy: Policy
) -> None:
    answer = await client.post("/act", json={"encoded": json.dumps(body(image=json_numpy(FRAME)))})
    told = json.loads(answer.json())
    assert np.array_equal(np.frombuffer(base64.b64decode(told["__numpy__"]), told["dtype"]), ACTION)
    assert told["shape"] == [7]


@pytest.mark.parametrize(
    "payload", [{"encoded": "{}", "image": 1}, {"encoded": 3}, {"encoded": "{"}, {"encoded": "[]"}]
)
async def test_a_body_in_a_string_that_is_none_is_refused(client: httpx.AsyncClient, payload: dict[str, Any]) -> None:
    assert (await client.post("/act", json=payload)).status_code == 400


async def test_a_dict_says_all_that_there_is_to_say(client: httpx.AsyncClient) -> None:
    answer = await client.post("/act?format=dict", json=body(), headers={"x-request-id": "r1"})
    told = answer.json()
    assert told["action"] == ACTION.tolist()
    assert told["actions"] == [ACTION.tolist(), (2 * ACTION).tolist()]
    assert (told["success"], told["parse_ok"], told["interventions"]) == (False, False, ["clipped", "unparsed"])
    assert (told["info"]["vlm_response"], told["info"]["model"], told["info"]["provider"]) == ("I move.", "arm", "vllm")
    assert (told["request_id"], told["weight_version"], told["observation_age_ms"]) == ("r1", 7, 12.5)
    assert set(told["timing_ms"]) == {"queue", "infer", "total"}


async def test_what_a_bare_list_cannot_say_stands_in_headers(client: httpx.AsyncClient) -> None:
    headers = (await client.post("/act", json=body(), headers={"x-request-id": "r1"})).headers
    assert (headers["x-weight-version"], headers["x-parse-ok"]) == ("7", "false")
    assert (headers["x-observation-age-ms"], headers["x-interventions"]) == ("12.500", "clipped,unparsed")


async def test_a_test_is_answered_with_what_the_model_said(client: httpx.AsyncClient) -> None:
    answer = await client.post("/act", json=body(test=True))
    assert answer.json() == {"action": ACTION.tolist(), "vlm_response": "I move."}


@pytest.mark.parametrize("missing", [{"image": None}, {"instruction": None}, {"image": None, "images": [None]}])
async def test_missing_fields_are_named_in_the_words_that_clients_know(
    client: httpx.AsyncClient, policy: Policy, missing: dict[str, Any]
) -> None:
    answer = await client.post("/act", json=body(**missing))
    assert answer.status_code == 400
    assert answer.json()["detail"] == "Missing required fields: image and instruction"
    assert {"kind", "request_id"} <= set(answer.json())
    assert policy.asked == []


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"image": 3}, "image"),
        ({"image": "?!?!"}, "base64"),
        ({"image": np.zeros((3, 64, 64)).tolist()}, "channels come last"),
        ({"instruction": 3}, "instruction"),
        ({"proprio": ["x"]}, "proprio"),
        ({"seed": "1"}, "seed"),
        ({"delay": 2, "prefix_action": [[0.0] * 7]}, "delay"),
        ({"prefix_action": [[0.0], [0.0, 1.0]]}, "prefix_action"),
    ],
)
async def test_a_wrong_value_reaches_no_policy_and_is_named(
    client: httpx.AsyncClient, policy: Policy, changes: dict[str, Any], part: str
) -> None:
    answer = await client.post("/act", json=body(**changes))
    assert (answer.status_code, answer.json()["kind"]) == (400, "invalid_request")
    assert part in answer.json()["message"]
    assert policy.asked == []


async def test_more_numbers_than_are_worth_parsing_are_refused_with_a_better_way(client: httpx.AsyncClient) -> None:
    answer = await client.post("/act", json=body(image=[[[0, 0, 0]] * 100] * 70))
    assert (answer.status_code, answer.json()["kind"]) == (413, "too_large")
    assert "send images as base64" in answer.json()["message"]


async def test_more_images_than_the_policy_takes_are_refused_before_one_is_decoded(
    client: httpx.AsyncClient, policy: Policy
) -> None:
    steps = [{"images": ["no image"], "description": "moved"}] * 4
    answer = await client.post("/act", json=body(history={"steps": steps}))
    assert (answer.status_code, answer.json()["kind"]) == (413, "too_large")
    assert policy.asked == []


async def test_state_history_and_committed_actions_arrive(client: httpx.AsyncClient, policy: Policy) -> None:
    past = {"steps": [{"images": [png()], "description": "moved left"}]}
    changes = {"proprio": [0.5, 1, 2, 3, 4, 5, 0, 0.25], "history": past, "unnorm_key": "bridge", "seed": 5}
    await client.post("/act", json=body(**changes, prefix_action=[[1, 2], [3, 4]], delay=1))
    [(_, asked)] = policy.asked
    assert asked.observation.state is not None
    assert asked.observation.state.tolist() == [0.5, 1, 2, 3, 4, 5, 0, 0.25]
    assert asked.history is not None
    assert asked.history[0].description == "moved left"
    assert np.array_equal(asked.history[0].images[0], FRAME)
    assert (asked.statistics, asked.noise_seed) == ("bridge", 5)
    assert asked.committed is not None
    assert (asked.committed.actions.tolist(), asked.committed.delay) == ([[1, 2], [3, 4]], 1)


@pytest.mark.parametrize(
    ("path", "model", "asked"),
    [
        ("/act", "robot", "robot"),
        ("/act?policy=robot", "arm", "robot"),
        ("/policies/robot/act", "arm", "robot"),
        ("/act", "arm", "arm"),
    ],
)
async def test_a_policy_is_chosen_by_path_query_or_body(
    client: httpx.AsyncClient, policy: Policy, path: str, model: str, asked: str
) -> None:
    assert (await client.post(path, json=body(model=model))).status_code == 200
    assert policy.asked[0][0] == asked


@pytest.mark.parametrize("model", [None, "vllm-model", "text"])
async def test_a_choice_that_nobody_made_is_asked_for(client: httpx.AsyncClient, policy: Policy, model: Any) -> None:
    answer = await client.post("/act", json=body(model=model))
    assert (answer.status_code, answer.json()["kind"]) == (404, "not_found")
    assert "answered by: arm, robot" in answer.json()["message"]


async def test_a_failure_has_its_status_and_says_when_to_try_again(client: httpx.AsyncClient, policy: Policy) -> None:
    policy.failure = PolicyError("overloaded", "too many")
    answer = await client.post("/act", json=body())
    assert (answer.status_code, answer.json()["detail"]) == (429, "too many")
    assert int(answer.headers["retry-after"]) >= 1


async def test_an_answer_that_does_not_come_is_not_waited_for(
    client: httpx.AsyncClient, policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deployments.transports.http.answers.MARGIN_S", 0.0)
    policy.answering.clear()
    answer = await client.post("/act", json=body(), headers={"x-timeout-s": "0.05"})
    assert (answer.status_code, answer.json()["kind"]) == (408, "deadline_exceeded")


async def test_a_reset_forgets_one_session_of_each_policy_that_remembers_or_of_the_one_that_is_named(
    client: httpx.AsyncClient, policy: Policy
) -> None:
    answer = await client.post("/reset", headers={"x-session-id": "s1"})
    assert (answer.status_code, answer.json()) == (200, {"status": "reset successful"})
    assert policy.reset_sessions == [("arm", "s1"), ("robot", "s1")]
    await client.post("/reset", json={"session_id": "s2", "model": "arm"})
    assert policy.reset_sessions[2:] == [("arm", "s2")]
