"""An arm's question to its model, and the step that comes of the answer."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from configs.acting import ActConfig, ArmConfig, SafetyConfig
from configs.base import ConfigError
from deployments.acting.arm.policy import TEST_CONNECTION, ArmPolicy
from deployments.acting.counts import Counts
from deployments.acting.sessions import Sessions
from deployments.errors import PolicyError
from deployments.protocol.act import ActRequest, ChatRequest, ChatResult, Observation, PastStep, PolicyMetadata

FORWARD = json.dumps({"x": ["forward", 1.0, "near"], "gripper": ["open gripper", 1, ""]})
CLOSE = json.dumps({"z": ["down", 1.0, "reach"], "gripper": ["close gripper", 1, ""]})
FRAME = np.zeros((2, 2, 3), np.uint8)
STATE = np.array([0.5, 0, 0, 0, 0, 0, 0, 0.39], np.float32)


class Model:
    """Says `text`; keeps what it was asked."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.asked: list[ChatRequest] = []

    async def __call__(self, request: ChatRequest) -> ChatResult:
        self.asked.append(request)
        return ChatResult(self.text, weight_version=5, queue_ms=1.0, infer_ms=2.0)


def policy(
    model: Model, arm: ArmConfig | None = None, safety: SafetyConfig | None = None, **config: Any
) -> tuple[ArmPolicy, Counts]:
    counts, arm = Counts(), arm or ArmConfig()
    act = ActConfig(arm=arm, safety=safety or SafetyConfig(), **config)
    return ArmPolicy("arm", arm, act, model, Sessions(9, 10**6, 60, clock=lambda: 0.0), counts), counts


def request(shade: int = 0, state: Any = None, **changes: Any) -> ActRequest:
    frame = np.full((2, 2, 3), shade, np.uint8)
    asked = ActRequest("7", Observation((frame,), "lift the cup", state), "session", 1e12)
    return replace(asked, **changes)


def shades(asked: ChatRequest) -> list[int]:
    return [int(image[0, 0, 0]) for turn in asked.turns for image in turn.images]


async def test_a_step_is_what_the_model_said_in_metres() -> None:
    model = Model(FORWARD)
    arm, counts = policy(model)
    result = await arm.infer(request(state=STATE, noise_seed=3, min_weight_version=4))

    assert result.actions == pytest.approx(np.array([[0.011131, 0, 0, 0, 0, 0, 1]]))
    assert (result.text, result.parse_ok, result.interventions) == (FORWARD, True, ())
    assert (result.weight_version, result.queue_ms, result.infer_ms) == (5, 1.0, 2.0)
    asked = model.asked[0]
    assert (asked.seed, asked.min_weight_version, asked.temperature, asked.max_tokens) == (3, 4, 0.7, 512)
    assert asked.json_schema is not None
    assert not counts.unreadable


async def test_a_session_shows_its_own_earlier_steps_and_no_other_does() -> None:
    model = Model(FORWARD)
    arm, _ = policy(model, ArmConfig(max_history_steps=2))
    for shade in (1, 2, 3, 4):
        await arm.infer(request(shade))
    await arm.infer(request(9, session_id="another"))

    assert [shades(asked) for asked in model.asked] == [[1], [1, 2], [1, 2, 3], [2, 3, 4], [9]]
    assert model.asked[1].turns[2].text == FORWARD


async def test_the_history_that_a_client_tells_comes_before_the_sessions_own() -> None:
    model = Model(FORWARD)
    arm, _ = policy(model)
    await arm.infer(request(1))
    told = PastStep((np.full((2, 2, 3), 70, np.uint8),), "I waited.")
    await arm.infer(request(2, history=(told,)))
    await arm.infer(request(3, history=()))

    assert [shades(asked) for asked in model.asked[1:]] == [[70, 2], [3]]


async def test_no_more_images_are_shown_than_the_policy_takes() -> None:
    model = Model(FORWARD)
    arm, _ = policy(model, max_images=2)
    for shade in (1, 2, 3):
        await arm.infer(request(shade))

    assert [shades(asked) for asked in model.asked] == [[1], [1, 2], [2, 3]]


async def test_an_answer_that_cannot_be_read_moves_nothing_keeps_the_gripper_and_is_counted() -> None:
    model = Model(FORWARD)
    arm, counts = policy(model)
    await arm.infer(request(1))
    model.text = "I am not sure."
    result = await arm.infer(request(2))
    model.text = FORWARD
    await arm.infer(request(3))

    assert result.actions.tolist() == [[0, 0, 0, 0, 0, 0, 1]]
    assert (result.parse_ok, result.interventions, result.text) == (False, ("unparsed", "held"), "I am not sure.")
    assert counts.unreadable == {("arm", "act"): 1}
    assert counts.interventions == {("arm", "unparsed"): 1, ("arm", "held"): 1}
    assert shades(model.asked[2]) == [1, 3]  # what was not understood is not shown again


@pytest.mark.parametrize(("state", "gripper"), [(None, 0.0), (STATE, 1.0), (np.zeros(8, np.float32), 0.0)])
async def test_before_the_first_step_the_gripper_is_held_as_the_state_says(state: Any, gripper: float) -> None:
    arm, _ = policy(Model("?"))

    assert (await arm.infer(request(state=state))).actions.tolist() == [[0, 0, 0, 0, 0, 0, gripper]]


async def test_the_limits_apply_to_the_robots_order_of_axes() -> None:
    order: Any = ["gripper", "z", "y", "x", "tilt", "roll", "rotation"]
    arm, counts = policy(Model(CLOSE), ArmConfig(action_order=order), SafetyConfig(low=[0, -0.01, *[-1.0] * 5]))
    result = await arm.infer(request())

    assert result.actions[0, :2] == pytest.approx([0, -0.01])
    assert counts.interventions == {("arm", "clipped"): 1}


async def test_the_workspace_is_kept_from_where_the_state_says_that_the_gripper_is() -> None:
    safety = SafetyConfig(workspace_low=[0, -1, -1], workspace_high=[0.505, 1, 1])
    arm, _ = policy(Model(FORWARD), safety=safety)

    result = await arm.infer(request(state=STATE))
    assert result.actions[0, 0] == pytest.approx(0.005)
    with pytest.raises(PolicyError, match="send a state"):
        await arm.check(request())


async def test_a_workspace_follows_the_order_of_the_axes() -> None:
    order: Any = ["gripper", "y", "x", "z", "tilt", "roll", "rotation"]
    safety = SafetyConfig(workspace_low=[0, -1, 0], workspace_high=[1, 1, 0.505])
    arm, _ = policy(Model(FORWARD), ArmConfig(action_order=order), safety)

    assert (await arm.infer(request(state=STATE))).actions[0, :3] == pytest.approx([1, 0, 0.005])


def test_a_workspace_of_angles_stops_the_start() -> None:
    order: Any = ["x", "tilt", "y", "z", "roll", "rotation", "gripper"]
    for box in ([0.0, 0.0], [0.0, 0.0, 0.0]):
        with pytest.raises(ConfigError, match="beyond the axes x, y and z of action_order"):
            policy(Model(""), ArmConfig(action_order=order), SafetyConfig(workspace_low=box, workspace_high=box))


async def test_statistics_are_those_that_the_request_names() -> None:
    arm, _ = policy(Model(FORWARD))

    assert (await arm.infer(request(statistics="bridge_orig"))).actions[0, 0] == pytest.approx(0.011131)
    with pytest.raises(PolicyError, match="no action statistics 'x'; this policy has bridge_orig, default"):
        await arm.check(request(statistics="x"))


async def test_what_cannot_be_answered_is_refused_before_the_model_is_asked() -> None:
    arm, _ = policy(Model(FORWARD), max_images=2)
    await arm.check(request())

    with pytest.raises(PolicyError, match="at least one image"):
        await arm.check(request(observation=Observation((), "go")))
    with pytest.raises(PolicyError, match="proprio must be 8 numbers"):
        await arm.check(request(state=np.zeros(7, np.float32)))
    with pytest.raises(PolicyError, match="3 images: the policy takes at most 2") as refusal:
        await arm.check(request(history=(PastStep((FRAME, FRAME), ""),)))
    assert refusal.value.kind == "too_large"


async def test_text_is_bounded() -> None:
    arm, _ = policy(Model(FORWARD), max_text_chars=8)
    await arm.check(request(observation=Observation((FRAME,), "12345678"), history=(PastStep((), "12345678"),)))

    for asked, words in (
        (request(observation=Observation((FRAME,), "123456789")), "the instruction has 9 characters; the limit is 8"),
        (request(observation=Observation((FRAME,), "1"), history=(PastStep((), "123456789"),)), "of an earlier step"),
    ):
        with pytest.raises(PolicyError, match=words) as refusal:
            await arm.check(asked)
        assert refusal.value.kind == "too_large"


def test_a_connection_is_tested_with_seven_zeros_and_without_the_model() -> None:
    arm, _ = policy(Model(FORWARD))
    tested = arm.answers_without_model(request(observation=Observation((), TEST_CONNECTION)))

    assert tested is not None
    assert tested.actions.tolist() == [[0.0] * 7]
    assert arm.answers_without_model(request()) is None


async def test_two_robots_that_count_their_requests_alike_are_told_apart_by_the_engine() -> None:
    model = Model(FORWARD)
    arm, _ = policy(model)
    await arm.infer(request())
    await arm.infer(request())

    assert len({asked.request_id for asked in model.asked}) == 2


def test_limits_of_another_length_stop_the_start() -> None:
    with pytest.raises(ConfigError, match=r"safety.low has 1 entries, but the policy's actions have 7 dimensions"):
        policy(Model(""), safety=SafetyConfig(low=[0]))


def test_it_describes_its_actions() -> None:
    arm, _ = policy(Model(""))
    described = arm.describe(PolicyMetadata("arm", "vllm", "qwen", ("act",)))

    assert (described.horizon, described.action_dim, described.statistics) == (1, 7, ("bridge_orig", "default"))
