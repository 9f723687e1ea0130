"""A chunk policy's questions, and the chunks that come of the answers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from configs.acting import ActConfig, SafetyConfig
from deployments.acting.chunked import ChunkedPolicy
from deployments.acting.counts import Counts
from deployments.acting.sessions import Sessions
from deployments.errors import PolicyError
from deployments.protocol.act import (
    ActRequest,
    ChunkRequest,
    ChunkResult,
    ChunkShape,
    Committed,
    Observation,
    PolicyMetadata,
)

SHAPE = ChunkShape(
    cameras=2, resolution=(4, 6), state_dim=3, action_dim=2, horizon=3, max_delay=2, statistics=("arm", "other")
)
STATE = np.array([1, 2, 3], np.float32)
FRAME = np.full((4, 6, 3), 9, np.uint8)


class Replicas:
    """Answer `actions`; keep what they were asked."""

    def __init__(self, actions: Any = ((1, 1), (2, 2), (3, 3)), shape: ChunkShape = SHAPE) -> None:
        self.actions: NDArray[np.float32] = np.array(actions, np.float32)
        self.asked: list[ChunkRequest] = []
        self.shapes_asked = 0
        self._shape = shape

    async def shape(self) -> ChunkShape:
        self.shapes_asked += 1
        return self._shape

    async def __call__(self, request: ChunkRequest) -> ChunkResult:
        self.asked.append(request)
        return ChunkResult(request.request_id, self.actions, weight_version=4, queue_ms=1.0, infer_ms=2.0)


def policy(replicas: Replicas, **safety: Any) -> tuple[ChunkedPolicy, Counts]:
    counts = Counts()
    config = ActConfig(safety=SafetyConfig(**safety))
    return ChunkedPolicy("robot", config, replicas, sessions(), counts), counts


def sessions() -> Sessions:
    return Sessions(9, 10**6, 60, clock=lambda: 0.0)


def request(images: Any = (FRAME,), state: Any = STATE, **changes: Any) -> ActRequest:
    asked = ActRequest("7", Observation(tuple(images), "reach", state), "session", 1e12)
    return replace(asked, **changes)


async def test_a_chunk_is_what_the_replicas_answered() -> None:
    replicas = Replicas()
    robot, _ = policy(replicas)
    result = await robot.infer(request(noise_seed=3, statistics="other", min_weight_version=2))

    assert result.actions.tolist() == [[1, 1], [2, 2], [3, 3]]
    assert (result.request_id, result.weight_version, result.queue_ms, result.infer_ms) == ("7", 4, 1.0, 2.0)
    asked = replicas.asked[0]
    assert (asked.prompt, asked.noise_seed, asked.statistics) == ("reach", 3, "other")
    assert (asked.min_weight_version, asked.deadline_unix_s, asked.state.tolist()) == (2, 1e12, [1, 2, 3])


async def test_frames_have_the_policys_size_and_missing_cameras_are_black_and_masked() -> None:
    replicas = Replicas()
    robot, _ = policy(replicas)
    await robot.infer(request([None, np.full((8, 12, 3), 50, np.uint8)]))
    await robot.infer(request([FRAME]))

    first, second = replicas.asked
    assert (first.images.shape, first.image_mask.tolist()) == ((2, 4, 6, 3), [False, True])
    assert (first.images[0].max(), first.images[1].min(), first.images[1].max()) == (0, 50, 50)
    assert (second.image_mask.tolist(), np.array_equal(second.images[0], FRAME)) == ([True, False], True)


async def test_a_retry_has_the_same_id_for_the_replicas_and_another_robots_request_has_not() -> None:
    replicas = Replicas()
    robot, _ = policy(replicas)
    committed = Committed(np.ones((2, 2), np.float32), 1)
    for asked in (
        request(),
        request(session_id="after a reconnect", deadline_unix_s=2e12),
        request([FRAME + 1]),
        request([None, FRAME]),
        request([FRAME, FRAME * 0]),
        request(state=STATE + 1),
        request(committed=committed),
        request(noise_seed=1),
        request(statistics="arm"),
        request(request_id="8"),
    ):
        await robot.infer(asked)

    ids = [asked.request_id for asked in replicas.asked]
    assert ids[0] == ids[1]
    assert len(set(ids)) == len(ids) - 1


async def test_the_first_action_is_limited_from_what_the_robot_is_doing() -> None:
    replicas = Replicas([[9, 9]] * 3)
    robot, counts = policy(replicas, max_delta=[0.5, 0.5])
    committed = Committed(np.array([[5, 6], [7, 7]], np.float32), 0)

    from_state = await robot.infer(request(state=STATE[:2]))
    from_committed = await robot.infer(request(committed=committed))
    unknown = [await robot.infer(request(state=state)) for state in (STATE[:1], STATE)]

    assert from_state.actions.tolist() == [[1.5, 2.5], [2, 3], [2.5, 3.5]]
    assert from_committed.actions.tolist() == [[5.5, 6.5], [6, 7], [6.5, 7.5]]
    assert [result.actions.tolist() for result in unknown] == [[[9, 9]] * 3] * 2
    assert counts.interventions == {("robot", "slowed"): 2}


async def test_single_actions_are_limited_from_the_sessions_last_one() -> None:
    robot, _ = policy(Replicas([[9, 9]], replace(SHAPE, horizon=1)), max_delta=[1, 1])
    for expected in ([2, 3], [3, 4], [4, 5]):
        assert (await robot.infer(request(state=STATE[:2]))).actions.tolist() == [expected]


async def test_a_state_says_nothing_of_changes() -> None:
    robot, _ = policy(Replicas([[9, 9]] * 3), max_delta=[1, 1], relative=[True, False])

    assert (await robot.infer(request(state=STATE[:2]))).actions.tolist() == [[9, 3], [9, 4], [9, 5]]


async def test_an_action_that_is_not_finite_is_held_and_counted() -> None:
    robot, counts = policy(Replicas([[5, 5], [np.nan, 6], [7, 7]]))
    result = await robot.infer(request())

    assert (result.actions.tolist(), result.interventions) == ([[5, 5], [5, 5], [7, 7]], ("not_finite", "held"))
    assert counts.interventions == {("robot", "not_finite"): 1, ("robot", "held"): 1}


async def test_actions_of_another_shape_are_a_failure_of_the_engine() -> None:
    for actions in (np.zeros((3, 5)), np.zeros((0, 2)), np.zeros(2)):
        robot, _ = policy(Replicas(actions))
        with pytest.raises(PolicyError) as refusal:
            await robot.infer(request())
        assert refusal.value.kind == "engine_failed"


def committed(rows: Any, delay: int) -> ActRequest:
    return request(committed=Committed(np.array(rows, np.float32), delay))


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (request(state=None), "^invalid_request: Robot state is required but was not provided in the request$"),
        (request(state=np.zeros(4, np.float32)), "the state has 4 numbers; the policy takes 3"),
        (request([FRAME] * 3), "3 images for a policy of 2"),
        (request([]), "at least one image"),
        (request([None, None]), "at least one image"),
        (request(statistics="x"), "no action statistics 'x'; this policy has arm, other"),
        (committed([[1, 1]] * 5, 3), "delay must be in 0..2"),
        (committed([[1, 1]], 2), "delay must be in 0..1"),
        (committed([[1, 1]], -1), "delay must be in 0..1"),
        (committed([[1, 1, 1]], 1), "rows of 2 finite numbers"),
        (committed([[1, np.nan]], 1), "rows of 2 finite numbers"),
    ],
)
async def test_what_cannot_be_answered_is_refused_before_the_replicas_are_asked(asked: ActRequest, words: str) -> None:
    robot, _ = policy(Replicas())
    await robot.check(request())

    with pytest.raises(PolicyError, match=words) as refusal:
        await robot.check(asked)
    assert refusal.value.kind == "invalid_request"


async def test_the_instruction_is_bounded() -> None:
    robot = ChunkedPolicy("robot", ActConfig(max_text_chars=4), Replicas(), sessions(), Counts())

    with pytest.raises(PolicyError, match="the instruction has 5 characters; the limit is 4") as refusal:
        await robot.check(request())
    assert refusal.value.kind == "too_large"


async def test_nothing_committed_and_no_delay_is_fine() -> None:
    robot, _ = policy(Replicas())
    await robot.check(committed(np.zeros((0, 0)), 0))
    assert len((await robot.infer(committed(np.zeros((0, 0)), 0))).actions) == 3


async def test_the_shape_is_asked_once_and_described() -> None:
    replicas = Replicas()
    robot, _ = policy(replicas)
    known = PolicyMetadata("robot", "chunks", "folder", ("act",))
    assert robot.describe(known) == known

    await robot.prepare()
    await robot.check(request())
    described = robot.describe(known)

    assert replicas.shapes_asked == 1
    assert (described.horizon, described.action_dim, described.cameras, described.resolution) == (3, 2, 2, (4, 6))
    assert (described.state_dim, described.max_delay, described.statistics) == (3, 2, ("arm", "other"))


async def test_limits_of_another_length_are_told_when_the_shape_is_known() -> None:
    robot, _ = policy(Replicas(), low=[0.0])

    with pytest.raises(PolicyError, match=r"policy robot cannot act: safety.low has 1 entries") as refusal:
        await robot.prepare()
    assert refusal.value.kind == "internal"
    assert robot.answers_without_model(request()) is None
