from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest

from benchmarks.closed_loop import success
from configs.bc import ArmTable, BCConfig, ClosedLoopConfig, DemonstrationConfig, ReachTable
from deployments.protocol.act import Actions, ActRequest, ActResult, ChunkRequest
from envs.robots.arm_control import ArmObservation
from envs.robots.arm_world import ACTION_HIGH, ACTION_LOW
from envs.robots.reach import COLOURS
from tests.unit.deployments.transports.fakes import FakeActing, front
from tests.unit.deployments.transports.serving import Methods, grpc_server
from tests.unit.envs.robots.steering import towards
from training.imitation.robots import closed_loop, demonstrations, picture_of, request_of, table

ARM = BCConfig(
    table=ArmTable(task="pick"),
    demonstrations=DemonstrationConfig(episodes=2, noise=0.5),
    chunk_len=4,
    max_delay=2,
    evaluation=ClosedLoopConfig(execute_steps=2),
)
FEW = BCConfig(demonstrations=DemonstrationConfig(episodes=5, keep_every=2))


def look(request: ChunkRequest, horizon: int = 16) -> Actions:
    """A policy that measures where the named colour is in the picture, and goes there."""
    colour = next(colour for name, colour in COLOURS.items() if name in request.prompt)
    picture = request.images[0].astype(np.float32)
    like = np.exp(-np.linalg.norm(picture - np.array(colour), axis=2) / 10.0)
    side = len(picture)
    rows, columns = np.indices(like.shape)
    x = (like * (columns + 0.5)).sum() / like.sum() / side * 2 - 1
    y = 1 - (like * (rows + 0.5)).sum() / like.sum() / side * 2
    return np.tile(np.array([x, y], np.float32), (horizon, 1))


def test_a_policy_that_sees_the_named_object_reaches_it_on_every_held_out_table() -> None:
    settings = ClosedLoopConfig(episodes=30)
    result = closed_loop(lambda asked: [look(one) for one in asked], settings, ReachTable())
    assert result.value == 1.0
    assert 0.8 < result.low < 1.0


async def test_it_reaches_them_over_grpc_too() -> None:
    async def looks(request: ActRequest) -> ActResult:
        frames = np.stack([frame for frame in request.observation.images if frame is not None])
        assert request.observation.state is not None
        asked = ChunkRequest(
            "", frames, np.ones(1, np.bool_), request.observation.state, request.observation.instruction
        )
        return ActResult(request.request_id, look(asked), weight_version=0)

    config = BCConfig(evaluation=ClosedLoopConfig(episodes=30))
    async with grpc_server(Methods(front(FakeActing(looks)))) as address:
        result = await asyncio.to_thread(success, address, "arm", config)

    assert result.value == 1.0


def test_a_policy_that_stands_still_reaches_none() -> None:
    settings = ClosedLoopConfig(episodes=30)

    def still(asked: Sequence[ChunkRequest]) -> list[Actions]:
        return [np.tile(one.state, (16, 1)) for one in asked]

    assert closed_loop(still, settings, ReachTable()).value == 0.0


def test_a_policy_that_goes_to_the_other_object_reaches_none() -> None:
    def other(asked: Sequence[ChunkRequest]) -> list[Actions]:
        wrong = []
        for one in asked:
            seen = {name: look(_named(one, name)) for name in COLOURS if name not in one.prompt}
            shown = max(seen, key=lambda name: _share(one, name))
            wrong.append(seen[shown])
        return wrong

    assert closed_loop(other, ClosedLoopConfig(episodes=20), ReachTable()).value == 0.0


def _named(request: ChunkRequest, colour: str) -> ChunkRequest:
    return ChunkRequest(request.request_id, request.images, request.image_mask, request.state, colour)


def _share(request: ChunkRequest, colour: str) -> float:
    distance = np.linalg.norm(request.images[0].astype(np.float32) - np.array(COLOURS[colour]), axis=2)
    return float((distance < 40).mean())


def test_what_is_asked_never_tells_where_the_object_is_but_in_the_picture() -> None:
    env = table(ReachTable(), "heldout")
    request = request_of(env.reset(0), "r")
    assert request.state.shape == (2,)
    assert request.images.shape == (1, 32, 32, 3)
    assert request.noise_seed is None, "it follows from the id"


def test_the_expert_shows_its_plan_from_where_a_disturbance_led_it() -> None:
    shown = demonstrations(FEW)
    assert shown.chunks_H.shape == (len(shown), 16, 2)
    steps = np.linalg.norm(np.diff(shown.chunks_H, axis=1), axis=2)
    assert steps.max() <= 0.1 + 1e-5
    first = np.linalg.norm(shown.chunks_H[:, 0] - shown.states, axis=1)
    assert first.max() <= 0.1 + 1e-5, "each plan begins at its own state"
    assert not np.allclose(shown.states[1:5], shown.chunks_H[0:4, 1], atol=1e-3), "disturbed: not where the plan led"


def test_the_same_seed_shows_the_same() -> None:
    first, again = demonstrations(FEW), demonstrations(FEW)
    other = demonstrations(FEW.model_copy(update={"seed": 1}))
    assert first.chunks_H.tobytes() == again.chunks_H.tobytes()
    assert first.images.tobytes() == again.images.tobytes()
    assert first.states[0].tolist() != other.states[0].tolist()


@pytest.mark.usefixtures("mujoco")
def test_a_policy_that_goes_where_the_state_says_reaches_the_arms_cubes_and_one_that_goes_away_none() -> None:
    settings, task = ClosedLoopConfig(episodes=6, execute_steps=1), ArmTable(task="reach")

    assert closed_loop(lambda asked: [towards(one.state)[None] for one in asked], settings, task).value == 1.0
    assert closed_loop(lambda asked: [-towards(one.state)[None] for one in asked], settings, task).value == 0.0


@pytest.mark.usefixtures("mujoco")
def test_only_the_first_actions_of_a_chunk_are_executed() -> None:
    settings, task = ClosedLoopConfig(episodes=4, execute_steps=2), ArmTable(task="reach", max_steps=30)

    def answered(asked: Sequence[ChunkRequest], good: int) -> list[Actions]:
        halves = [towards(one.state)[:6] / 2 for one in asked]
        return [np.stack([[*half, 1]] * good + [[*-half, 1]] * 6).astype(np.float32) for half in halves]

    assert closed_loop(lambda asked: answered(asked, 2), settings, task).value == 1.0
    assert closed_loop(lambda asked: answered(asked, 1), settings, task).value == 0.0


@pytest.mark.usefixtures("mujoco")
def test_the_arms_expert_shows_seven_numbers_within_the_bounds_with_the_gripper_open_or_closed() -> None:
    shown = demonstrations(ARM)
    assert shown.chunks_H.shape == (len(shown), 4, 7)
    assert shown.states.shape == (len(shown), 16)
    assert shown.images.shape == (len(shown), 16, 16, 3)
    assert (shown.chunks_H >= ACTION_LOW - 1e-6).all()
    assert (shown.chunks_H <= ACTION_HIGH + 1e-6).all()
    assert set(np.unique(shown.chunks_H[:, :, 6])) == {0.0, 1.0}
    assert all(prompt.startswith("pick up the ") for prompt in shown.prompts)
    assert set(np.unique(shown.states[:, 15])) == {0.0, 1.0}, "what was executed had it open or closed, too"


@pytest.mark.usefixtures("mujoco")
def test_the_arms_demonstrations_are_disturbed_and_the_same_for_the_same_seed() -> None:
    first, again = demonstrations(ARM), demonstrations(ARM)
    calm = demonstrations(ARM.model_copy(update={"demonstrations": DemonstrationConfig(episodes=2, noise=0.0)}))
    assert first.states.tobytes() == again.states.tobytes()
    assert first.chunks_H.tobytes() == again.chunks_H.tobytes()
    moved = np.diff(calm.states[:3, 3:6], axis=0)
    assert np.abs(moved).max() < np.abs(np.diff(first.states[:3, 3:6], axis=0)).max(), "the hand is turned about"


@pytest.fixture
def mujoco() -> None:
    pytest.importorskip("mujoco")


def test_a_robot_without_a_camera_cannot_be_shown() -> None:
    with pytest.raises(ValueError, match="make the table with a camera"):
        picture_of(ArmObservation(None, np.zeros(8, np.float32), "reach the red cube"))
