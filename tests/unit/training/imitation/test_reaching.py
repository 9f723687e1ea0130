from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np

from benchmarks.closed_loop import success
from configs.bc import BCConfig, ClosedLoopConfig, DemonstrationConfig, ReachTable
from deployments.protocol.act import Actions, ActRequest, ActResult, ChunkRequest
from envs.robots.reach import COLOURS
from tests.unit.deployments.transports.fakes import FakeActing, front
from tests.unit.deployments.transports.serving import Methods, grpc_server
from training.imitation.reaching import closed_loop, demonstrations, request_of, table

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
