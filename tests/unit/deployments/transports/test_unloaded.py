"""What open connections of every protocol notice when their policy is unloaded: over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import numpy as np
import orjson
import pytest
from fastapi import FastAPI, WebSocket
from websockets.asyncio.client import connect

from configs.policies import AnyPolicy, ChunkPolicy, PolicyConfig
from deployments.protocol import policy_pb2 as pb
from deployments.protocol.act import ActRequest, ActResult
from deployments.protocol.msgpack_numpy import packed, unpacked
from deployments.protocol.policy_pb2_grpc import RobotPolicyServiceStub
from deployments.transports.front import Front
from deployments.transports.websocket.game_stream import serve_game
from tests.unit.deployments.transports.fakes import FakeActing, front
from tests.unit.deployments.transports.serving import Methods, grpc_server, http_server, openpi_server
from tests.unit.deployments.transports.test_managed import until

ROBOT = ChunkPolicy(name="new", checkpoint="made-up")
PLAYER = PolicyConfig.model_validate({"name": "new", "model": "m", "act": {"game": {}}})
IMAGE = np.full((4, 4, 3), 51, np.uint8)
SEEN = {
    "observation/image": IMAGE,
    "observation/wrist_image": IMAGE,
    "observation/state": np.ones(1, np.float32),
    "prompt": "fold",
}
GONE = "the policy 'new' was unloaded; served: arm"


def managed(policy: AnyPolicy, acting: FakeActing | None = None) -> Front:
    its_front = front(acting, http={"manage_policies": True})
    its_front.served.add(policy)
    return its_front


def message() -> pb.ObservationRequest:
    raw = np.full((4, 4, 3), 51, "<f4").tobytes()
    images = [pb.CameraImage(image_data=raw, encoding="raw")]
    return pb.ObservationRequest(images=images, robot_state=pb.RobotState(state=[1.0]), prompt="fold")


async def test_a_robots_socket_is_told_that_its_policy_is_gone_and_is_closed() -> None:
    its_front = managed(ROBOT)
    async with openpi_server(its_front) as url, connect(f"{url}/policies/new", compression=None) as socket:
        await socket.recv()
        await socket.send(packed(SEEN))
        assert "actions" in unpacked(await socket.recv())  # type: ignore[arg-type]
        its_front.served.close("new")
        await socket.send(packed(SEEN))
        told = orjson.loads(await socket.recv())
        await socket.wait_closed()

    assert (told["kind"], told["message"]) == ("not_found", GONE)


async def test_a_players_stream_is_told_that_its_policy_is_gone() -> None:
    its_front = managed(PLAYER)
    app = FastAPI()

    @app.websocket("/policies/{name}/stream")
    async def stream(socket: WebSocket) -> None:
        await serve_game(socket, its_front)

    image = {"data": "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGNgYGAAAAAEAAH2FzhVAAAAAElFTkSuQmCC"}
    question = orjson.dumps({"task_name": "MineRLBasaltFindCave-v0", "image": image}).decode()
    async with http_server(app) as address, connect(f"ws://{address}/policies/new/stream") as socket:
        await socket.send(question)
        assert orjson.loads(await socket.recv())["type"] == "action"
        its_front.served.close("new")
        await socket.send(question)
        told = orjson.loads(await socket.recv())

    assert (told["type"], told["kind"], told["message"]) == ("error", "not_found", GONE)


async def test_a_grpc_stream_is_told_that_its_policy_is_gone_and_a_later_call_that_there_is_none() -> None:
    its_front = managed(ROBOT)
    may_ask = asyncio.Event()

    async def observations() -> AsyncIterator[pb.ObservationRequest]:
        yield message()
        await may_ask.wait()
        yield message()

    async with grpc_server(Methods(its_front)) as address, grpc.aio.insecure_channel(address) as channel:
        stub, named = RobotPolicyServiceStub(channel), [("x-policy", "new")]
        stream = stub.StreamActionChunks(observations(), metadata=named)
        answers = aiter(stream)
        assert (await anext(answers)).action_chunk
        its_front.served.close("new")
        may_ask.set()
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await anext(answers)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.GetActionChunk(message(), metadata=named)

    assert (ended.value.code(), ended.value.details()) == (grpc.StatusCode.NOT_FOUND, GONE)
    assert refused.value.details() == "no policy 'new'; served: arm"


async def test_what_a_connection_has_asked_before_is_under_way_until_it_is_answered() -> None:
    acting = FakeActing()
    may_answer, answer = asyncio.Event(), acting.answer

    async def slowly(request: ActRequest) -> ActResult:
        await may_answer.wait()
        return await answer(request)

    acting.answer = slowly
    its_front = managed(ROBOT, acting)
    async with openpi_server(its_front) as url, connect(f"{url}/policies/new", compression=None) as socket:
        await socket.recv()
        await socket.send(packed(SEEN))
        await acting.begun.wait()
        its_front.served.close("new")
        drained = asyncio.ensure_future(its_front.served.drained("new", 60.0))
        await asyncio.sleep(0)
        assert not drained.done()
        may_answer.set()
        assert "actions" in unpacked(await socket.recv())  # type: ignore[arg-type]
        await until(drained.done)
