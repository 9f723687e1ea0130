"""What a transport gets when it asks: whose answer, how old, by when, and from which policy."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from configs.acting import ActConfig, ArmConfig, GameConfig
from configs.policies import AnyPolicy, ChunkPolicy, PolicyConfig
from configs.serving import ServeConfig
from deployments.acting.act import Acting
from deployments.errors import PolicyError
from deployments.protocol.act import (
    ActRequest,
    ChatRequest,
    ChatResult,
    ChunkRequest,
    ChunkResult,
    ChunkShape,
    Committed,
    Observation,
)
from deployments.protocol.game import PlayRequest, PlayStep

FORWARD = json.dumps({"x": ["forward", 1.0, "near"]})
FRAME = np.zeros((2, 2, 3), np.uint8)
SHAPE = ChunkShape(cameras=1, resolution=(2, 2), state_dim=2, action_dim=2, horizon=3, max_delay=2)
LATER = time.time() + 3600


class Model:
    """Answers `text` when it is told to; keeps what it was asked."""

    def __init__(self, text: str = FORWARD, at_once: bool = True) -> None:
        self.text = text
        self.asked: list[ChatRequest] = []
        self.cancelled = 0
        self.begun = asyncio.Semaphore(0)
        self.may_answer = asyncio.Event()
        if at_once:
            self.may_answer.set()

    async def __call__(self, request: ChatRequest) -> ChatResult:
        self.asked.append(request)
        self.begun.release()
        try:
            await self.may_answer.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return ChatResult(self.text, weight_version=len(self.asked), infer_ms=2.0)

    async def begins(self) -> None:
        await asyncio.wait_for(self.begun.acquire(), 10)


class Replicas:
    def __init__(self) -> None:
        self.asked: list[ChunkRequest] = []

    async def shape(self) -> ChunkShape:
        return SHAPE

    async def __call__(self, request: ChunkRequest) -> ChunkResult:
        self.asked.append(request)
        await asyncio.sleep(0)
        return ChunkResult(request.request_id, np.full((3, 2), len(self.asked), np.float32), weight_version=8)


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def arm(name: str = "arm", **act: Any) -> PolicyConfig:
    return PolicyConfig(name=name, model="qwen", act=ActConfig(arm=ArmConfig(), **act))


def acting(*policies: AnyPolicy, model: Model | None = None, clock: Any = time.time, replicas: Any = None) -> Acting:
    chunky = [policy.name for policy in policies if isinstance(policy, ChunkPolicy)]
    config = ServeConfig.model_construct(policies=list(policies))
    chats = {policy.name: model or Model() for policy in policies if policy.name not in chunky}
    return Acting(config, chats, dict.fromkeys(chunky, replicas or Replicas()), clock=clock)


def request(name: str = "1", **changes: Any) -> ActRequest:
    state = changes.pop("state", None)
    observation = Observation((FRAME,), changes.pop("instruction", "lift"), state, changes.pop("taken", None))
    return replace(ActRequest(name, observation, "robot", LATER), **changes)


ROBOT = ChunkPolicy(name="robot", checkpoint="folder")
GAME = PolicyConfig(name="game", model="qwen", act=ActConfig(game=GameConfig()))
TEXT = PolicyConfig(name="text", model="qwen")
STATE = np.zeros(2, np.float32)


async def settled() -> None:
    """Lets everything run that can run without the model."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_an_answer_says_whose_it_is_how_old_its_observation_is_and_what_it_took() -> None:
    clock, model = Clock(), Model(at_once=False)
    task = asyncio.create_task(acting(arm(), model=model, clock=clock).act("arm", request(taken=999.9)))
    await model.begins()
    clock.now_s += 0.5
    model.may_answer.set()
    result = await task

    assert (result.request_id, result.observation_id, result.weight_version) == ("1", "1", 1)
    assert result.observation_age_ms == pytest.approx(600)
    assert (result.total_ms, result.infer_ms, result.queue_ms) == (pytest.approx(500), 2.0, 0.0)


async def test_an_age_is_never_negative_and_counts_from_arrival_when_nothing_is_said() -> None:
    asks = acting(arm(), clock=Clock())

    assert (await asks.act("arm", request(taken=2000.0))).observation_age_ms == 0
    assert (await asks.act("arm", request())).observation_age_ms == 0


async def test_what_queued_up_in_a_session_is_answered_from_its_newest_observation() -> None:
    clock, model = Clock(), Model(at_once=False)
    asks = acting(arm(), model=model, clock=clock)
    first = asyncio.create_task(asks.act("arm", request("1", taken=1000.0)))
    await model.begins()
    rest = [
        asyncio.create_task(asks.act("arm", request(str(number), taken=1000.0 + number / 10))) for number in (2, 3, 4)
    ]
    await settled()
    clock.now_s += 1.0
    model.may_answer.set()
    results = [await task for task in (first, *rest)]

    assert [result.request_id for result in results] == ["1", "2", "3", "4"]
    assert [result.observation_id for result in results] == ["1", "4", "4", "4"]
    assert [round(result.observation_age_ms) for result in results] == [1000, 800, 700, 600]
    assert [round(result.queue_ms) for result in results] == [0, 1000, 1000, 1000]
    assert [result.weight_version for result in results] == [1, 2, 2, 2]
    assert asks.counts.superseded == {("arm", "act"): 2}
    assert asks.counts.answers == {("arm", "act"): 4}


@pytest.mark.parametrize(
    "changes",
    [
        {"session_id": ""},
        {"session_id": "address 10.0.0.7"},
        {"noise_seed": 1},
    ],
)
async def test_requests_that_may_come_from_several_robots_or_are_seeded_have_answers_of_their_own(
    changes: dict[str, Any],
) -> None:
    model = Model(at_once=False)
    asks = acting(arm(), model=model)
    tasks = [asyncio.create_task(asks.act("arm", request(name, **changes))) for name in "123"]
    for _ in tasks:
        await model.begins()
    model.may_answer.set()

    assert [(await task).observation_id for task in tasks] == ["1", "2", "3"]


async def test_another_instruction_or_other_statistics_are_another_question() -> None:
    model = Model(at_once=False)
    asks = acting(arm(), model=model)
    asked = [request("1"), request("2", instruction="put it down"), request("3", statistics="bridge_orig")]
    tasks = [asyncio.create_task(asks.act("arm", one)) for one in asked]
    for _ in tasks:
        await model.begins()
    model.may_answer.set()

    assert [(await task).observation_id for task in tasks] == ["1", "2", "3"]


async def test_committed_actions_are_answered_for_the_request_that_has_them() -> None:
    replicas = Replicas()
    asks = acting(ROBOT, replicas=replicas)
    committed = Committed(np.zeros((2, 2), np.float32), 1)
    results = await asyncio.gather(
        *(asks.act("robot", request(name, state=STATE, committed=committed)) for name in "123")
    )

    assert [result.observation_id for result in results] == ["1", "2", "3"]
    assert len(replicas.asked) == 3


async def test_freshest_can_be_switched_off() -> None:
    model = Model(at_once=False)
    asks = acting(arm(freshest=False), model=model)
    tasks = [asyncio.create_task(asks.act("arm", request(name))) for name in "12"]
    for _ in tasks:
        await model.begins()
    model.may_answer.set()

    assert [(await task).observation_id for task in tasks] == ["1", "2"]


async def test_an_invalid_request_does_not_spoil_the_answer_of_the_others() -> None:
    model = Model(at_once=False)
    asks = acting(arm(), model=model)
    first = asyncio.create_task(asks.act("arm", request("1")))
    await model.begins()
    second = asyncio.create_task(asks.act("arm", request("2")))
    with pytest.raises(PolicyError, match="proprio must be 8 numbers") as refusal:
        await asks.act("arm", request("3", state=STATE))
    model.may_answer.set()

    assert refusal.value.request_id == "3"
    assert [(await task).observation_id for task in (first, second)] == ["1", "2"]
    assert asks.counts.failures == {("arm", "invalid_request"): 1}


async def test_a_shared_inference_has_the_patience_of_the_most_patient_and_the_newest_weights_asked_for() -> None:
    model = Model(at_once=False)
    asks = acting(arm(), model=model)
    tasks = [asyncio.create_task(asks.act("arm", request("1")))]
    await model.begins()
    for name, deadline, version in (("2", LATER + 50, 7), ("3", LATER, 3)):
        changed = request(name, deadline_unix_s=deadline, min_weight_version=version)
        tasks.append(asyncio.create_task(asks.act("arm", changed)))
    await settled()
    model.may_answer.set()
    await asyncio.gather(*tasks)

    assert (model.asked[1].deadline_unix_s, model.asked[1].min_weight_version) == (LATER + 50, 7)


async def test_a_request_ends_with_its_own_deadline_and_the_model_is_told() -> None:
    model = Model(at_once=False)
    asks = acting(arm(), model=model)
    with pytest.raises(PolicyError) as late:
        await asks.act("arm", request("1", deadline_unix_s=time.time() + 0.05))
    with pytest.raises(PolicyError) as too_late:
        await asks.act("arm", request("2", deadline_unix_s=time.time() - 1))
    await settled()

    assert (late.value.kind, late.value.request_id) == ("deadline_exceeded", "1")
    assert (too_late.value.kind, too_late.value.request_id) == ("deadline_exceeded", "2")
    assert (len(model.asked), model.cancelled) == (1, 1)


async def test_a_caller_that_leaves_is_cancelled_down_to_the_model() -> None:
    model = Model(at_once=False)
    task = asyncio.create_task(acting(arm(), model=model).act("arm", request()))
    await model.begins()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await settled()

    assert model.cancelled == 1


async def test_a_failure_of_the_engine_bears_the_id_of_the_request_and_when_to_try_again() -> None:
    async def broken(request: ChatRequest) -> ChatResult:
        raise PolicyError("overloaded", "full", request.request_id, retry_after_s=3.0)

    asks = acting(arm(), model=broken)  # type: ignore[arg-type]
    with pytest.raises(PolicyError, match="full") as failure:
        await asks.act("arm", request("mine"))

    assert (failure.value.request_id, failure.value.retry_after_s) == ("mine", 3.0)


async def test_a_reset_forgets_the_history_of_one_session_alone() -> None:
    model = Model()
    asks = acting(arm(), model=model)
    for session in ("robot", "other"):
        await asks.act("arm", request(session_id=session))
    await asks.reset("arm", "robot")
    await asks.reset(None, "never seen")
    for session in ("robot", "other"):
        await asks.act("arm", request(session_id=session))

    assert [sum(len(turn.images) for turn in asked.turns) for asked in model.asked] == [1, 1, 1, 2]


async def test_a_connection_is_tested_without_the_model() -> None:
    model = Model()
    result = await acting(arm(), model=model).act("arm", request(instruction="test connection"))

    assert (result.actions.tolist(), result.request_id, model.asked) == ([[0.0] * 7], "1", [])


async def test_a_player_is_answered_with_its_own_step_and_from_the_newest_frame() -> None:
    model = Model('{"reasoning": "go", "action": {"forward": 1}}', at_once=False)
    asks = acting(GAME, model=model)

    def frame(step: int) -> PlayRequest:
        return PlayRequest(str(step), "player", LATER, "MineRLBasaltFindCave-v0", [PlayStep(FRAME)], step=step)

    tasks = [asyncio.create_task(asks.play("game", frame(1)))]
    await model.begins()
    tasks += [asyncio.create_task(asks.play("game", frame(step))) for step in (2, 3)]
    await settled()
    model.may_answer.set()
    results = [await task for task in tasks]

    assert [(result.request_id, result.step, result.observation_id) for result in results] == [
        ("1", 1, "1"), ("2", 2, "3"), ("3", 3, "3"),
    ]  # fmt: skip
    assert all(result.action["forward"] == 1 for result in results)
    assert asks.counts.superseded == {("game", "play"): 1}


async def test_the_only_policy_that_fits_answers_when_none_is_named() -> None:
    asks = acting(arm(), GAME, TEXT)

    assert (await asks.act(None, request())).parse_ok
    with pytest.raises(PolicyError, match="no policy 'other' answers this; those that do: arm"):
        await asks.act("other", request())
    assert asks.metadata("text").roles == ()


async def test_where_several_fit_one_must_be_named() -> None:
    asks = acting(arm("left"), arm("right"), TEXT)

    assert (await asks.act("left", request())).parse_ok
    for name, words in ((None, "name a policy; those that do: left, right"), ("up", "no policy 'up' answers this")):
        with pytest.raises(PolicyError, match=words) as refusal:
            await asks.act(name, request("9"))
        assert (refusal.value.kind, refusal.value.request_id) == ("not_found", "9")


async def test_a_role_that_no_policy_has_is_not_found() -> None:
    with pytest.raises(PolicyError, match="those that do: none") as refusal:
        await acting(TEXT).act("text", request())
    assert refusal.value.kind == "not_found"


async def test_a_policy_describes_itself() -> None:
    asks = acting(arm(), ROBOT)
    before = asks.metadata("robot")
    described = await asks.described("robot", LATER)
    await asks.act("robot", request(state=STATE))

    assert (before.name, before.kind, before.model, before.roles, before.horizon) == (
        "robot", "chunks", "folder", ("act",), 0,
    )  # fmt: skip
    assert (described.horizon, described.action_dim, described.resolution) == (3, 2, (2, 2))
    assert asks.metadata("robot").weight_version == 8
    assert (asks.metadata("arm").kind, asks.metadata("arm").action_dim) == ("vllm", 7)


async def test_a_policy_that_is_removed_is_found_no_more_and_what_it_was_asked_is_answered() -> None:
    model = Model(at_once=False)
    asks = acting(arm("left"), arm("right"), model=model)
    under_way = asyncio.ensure_future(asks.act("left", request("1")))
    await model.begins()
    asks.remove("left")
    model.may_answer.set()

    assert (await under_way).parse_ok
    with pytest.raises(PolicyError, match="no policy 'left' answers this; those that do: right"):
        await asks.act("left", request("2"))
    await asks.reset("left", "robot")  # a connection that ends later


async def test_a_policy_that_comes_again_remembers_nothing_of_its_sessions() -> None:
    model = Model()
    asks = acting(arm(), model=model)
    for name in ("1", "2"):
        await asks.act("arm", request(name))
    asks.remove("arm")
    asks.add(arm(), model, None)
    await asks.act("arm", request("3"))

    assert [sum(len(turn.images) for turn in asked.turns) for asked in model.asked] == [1, 2, 1]
