"""The arm and the cave played through the real protocols, over sockets, by servers that know the game."""

from __future__ import annotations

import asyncio
import base64
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from configs.base import ConfigError
from deployments.client.observing import Told
from deployments.errors import PolicyError
from deployments.protocol.act import ActRequest, ActResult
from envs.base import SettingError
from envs.pixels.cave import Cave
from envs.pixels.game_actions import from_json, full_action
from tests.unit.deployments.transports.fakes import FakeActing, front
from tests.unit.deployments.transports.serving import Methods, grpc_server, http_server
from tests.unit.envs.robots.steering import towards
from training.evaluation.closed_loop import ClosedLoop, play_all, summarize
from training.evaluation.served import Server, episodes_of, moves_of

REACH = {"task": "reach", "state": "estimated", "split": "heldout"}
SMALL = {**REACH, "side": 16}
CAVE = {"side": 16, "max_steps": 40}
SEEDS = range(3)


async def played(env: str, server: Server, settings: dict[str, Any], parallel: int = 2) -> ClosedLoop:
    outcomes = await asyncio.to_thread(play_all, episodes_of(env, server, settings), SEEDS, parallel)
    return summarize(outcomes)


class ArmServer:
    """`POST /act` and `/reset` as a stock arm server has them: it answers a bare list."""

    def __init__(self, answer: Callable[[int, dict[str, Any]], JSONResponse] | None = None) -> None:
        """`answer`: of the number of the question, and its body."""
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.resets: list[str] = []
        self._answer = answer or (lambda number, body: moving(body))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        app = FastAPI()

        @app.post("/act")
        async def act(request: Request) -> JSONResponse:
            self.bodies.append(await request.json())
            self.headers.append(dict(request.headers))
            return self._answer(len(self.bodies), self.bodies[-1])

        @app.post("/reset")
        async def reset(request: Request) -> dict[str, str]:
            self.resets.append(request.headers["x-session-id"])
            return {"status": "reset successful"}

        async with http_server(app) as address:
            yield f"http://{address}"


def moving(body: dict[str, Any]) -> JSONResponse:
    return JSONResponse(towards(np.array(body["proprio"])).tolist())


@pytest.fixture
def mujoco() -> None:
    pytest.importorskip("mujoco")


@pytest.mark.usefixtures("mujoco")
async def test_the_arm_is_played_over_act_by_a_server_that_answers_bare_lists() -> None:
    server = ArmServer()
    async with server.running() as url:
        result = await played("arm", Server("url", url, key="secret"), REACH)

    assert result.success is not None
    assert result.success.value == 1.0
    body, sessions = server.bodies[0], {headers["x-session-id"] for headers in server.headers}
    assert set(body) == {"image", "instruction", "proprio"}
    assert (body["image"]["dtype"], body["image"]["shape"]) == ("|u1", [256, 256, 3])
    assert len(base64.b64decode(body["image"]["__numpy__"])) == 256 * 256 * 3
    assert body["instruction"].startswith("reach the ")
    assert len(sessions) == len(server.resets) == len(SEEDS), "each episode is a session of its own"
    assert server.headers[0]["authorization"] == "Bearer secret"


@pytest.mark.usefixtures("mujoco")
async def test_the_state_is_the_arms_own_eight_numbers_unless_asked_for_more() -> None:
    server = ArmServer(lambda number, body: JSONResponse({"action": [0.0] * 7, "success": False}))
    async with server.running() as url:
        result = await played("arm", Server("url", url), {"task": "reach", "max_steps": 2, "side": 16})

    assert [len(body["proprio"]) for body in server.bodies] == [8] * 6
    assert (result.played, result.unreadable) == (3, 1.0)
    assert result.success is not None
    assert result.success.value == 0.0


@pytest.mark.usefixtures("mujoco")
async def test_a_request_that_fails_is_sent_again_and_costs_nothing() -> None:
    refused = JSONResponse({"kind": "unavailable", "message": "a replica is starting"}, 503)
    server = ArmServer(lambda number, body: refused if number == 2 else moving(body))
    async with server.running() as url:
        result = await played("arm", Server("url", url), SMALL, parallel=1)

    assert (result.played, result.server_lost) == (3, 0)
    assert result.success is not None
    assert result.success.value == 1.0
    assert server.headers[1]["x-request-id"] == server.headers[2]["x-request-id"]


@pytest.mark.usefixtures("mujoco")
async def test_a_server_that_is_lost_on_the_way_costs_no_success() -> None:
    gone = JSONResponse({"kind": "internal", "message": "out of memory"}, 500)
    server = ArmServer(lambda number, body: gone if number == 3 else moving(body))
    async with server.running() as url:
        result = await played("arm", Server("url", url), SMALL, parallel=1)

    assert (result.played, result.server_lost) == (2, 1)
    assert result.success is not None
    assert result.success.value == 1.0
    assert result.errors == ["internal: out of memory"]


@pytest.mark.usefixtures("mujoco")
async def test_the_arm_is_played_over_grpc_with_some_actions_of_each_chunk() -> None:
    async def answer(request: ActRequest) -> ActResult:
        assert request.observation.state is not None
        away = -towards(request.observation.state)
        chunk = [towards(request.observation.state), *[away] * 9]  # who executes more than one goes wrong
        return ActResult(request.request_id, np.stack(chunk), weight_version=0)

    acting = FakeActing(answer)
    async with grpc_server(Methods(front(acting))) as address:
        right = await played("arm", Server("grpc", address, execute_steps=1), SMALL)
        asked = len(acting.asked)
        wrong = await played("arm", Server("grpc", address, execute_steps=4), SMALL)

    assert right.success is not None
    assert wrong.success is not None
    assert (right.success.value, wrong.success.value) == (1.0, 0.0)
    assert asked == sum(outcome.steps for outcome in right.outcomes)
    first = acting.asked[0]
    (frame,) = first.observation.images
    assert frame is not None
    assert frame.shape == (16, 16, 3)
    assert first.observation.instruction.startswith("reach the ")
    assert first.noise_seed is not None


class CaveServer:
    """`POST /get_action` by the environment's expert, which plays the same seed in step with who asks."""

    def __init__(self) -> None:
        self.tasks: list[str] = []
        self._seeds = iter(SEEDS)

    @asynccontextmanager
    async def running(self, refused_after: int | None = None) -> AsyncIterator[str]:
        app, env = FastAPI(), Cave(**CAVE)

        @app.post("/reset")
        async def reset() -> dict[str, str]:
            env.reset(next(self._seeds))
            return {"status": "reset successful"}

        @app.post("/get_action")
        async def get_action(request: Request) -> JSONResponse:
            body = await request.json()
            self.tasks.append(body["task_name"])
            if refused_after is not None and len(self.tasks) > refused_after:
                return JSONResponse({"kind": "unavailable", "message": "no replica"}, 503)
            text = env.expert_action(random.Random(0))
            env.step(text)
            return JSONResponse({"action": full_action(from_json(text)), "reasoning": "", "step": body["step"]})

        async with http_server(app) as address:
            yield f"http://{address}"


async def test_the_cave_is_played_over_get_action() -> None:
    server = CaveServer()
    async with server.running() as url:
        result = await played("cave", Server("url", url), CAVE, parallel=1)

    assert result.success is not None
    assert result.success.value == 1.0
    assert set(server.tasks) == {"MineRLBasaltFindCave-v0"}
    assert result.steps > 5


async def test_a_lost_server_is_not_taken_for_a_player_that_does_nothing() -> None:
    async with CaveServer().running(refused_after=0) as url:
        result = await played("cave", Server("url", url, timeout_s=0.5), CAVE, parallel=1)

    assert (result.played, result.server_lost) == (0, 3)


def told(actions: Any) -> Told:
    return Told("r", np.array(actions, np.float32))


def test_an_action_with_a_number_that_is_not_finite_leaves_the_arm_where_it_is() -> None:
    answer = moves_of(told([[0.0] * 7, [float("nan")] * 7]), Server("url", "http://x"))
    assert [move is None for move in answer.moves] == [False, True]
    assert not answer.parse_ok


@pytest.mark.parametrize("actions", [[[0.0] * 3], [], [0.0] * 7])
def test_actions_of_another_robot_are_told_and_end_it(actions: Any) -> None:
    with pytest.raises(PolicyError, match="the arm takes 7 numbers each"):
        moves_of(told(actions), Server("url", "http://x"))


@pytest.mark.parametrize(
    ("env", "protocol", "settings", "error", "message"),
    [
        ("key_door", "url", {}, ConfigError, "arm and cave are played so"),
        ("cave", "grpc", {}, ConfigError, "give --url instead"),
        ("arm", "url", {"tusk": "pick"}, SettingError, "Did you mean 'task'"),
        ("arm", "url", {"task": "stack"}, SettingError, "task must be one of"),
    ],
)
def test_what_cannot_be_played_is_told_before_anybody_is_asked(
    env: str, protocol: Any, settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        episodes_of(env, Server(protocol, "127.0.0.1:1"), settings)
