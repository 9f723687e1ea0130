"""Robots that ask for chunks in a closed loop, as OpenTau's and openpi's clients do: the same for each side.

An observation's frame is encoded before the clock starts.
"""

from __future__ import annotations

import asyncio
import io
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Protocol

import grpc
import numpy as np
from PIL import Image
from websockets.asyncio.client import ClientConnection, connect

from benchmarks.servers.robot_policy import observation
from deployments.protocol import policy_pb2 as pb
from deployments.protocol.act import Actions, Frame
from deployments.protocol.msgpack_numpy import packed, unpacked
from deployments.protocol.policy_pb2_grpc import RobotPolicyServiceStub

ANSWER_S = 60.0
Ask = Callable[[], Awaitable[object]]


class Robot(Protocol):
    async def ask(self, noise_seed: int | None = None) -> Actions: ...


class GrpcRobot:
    """Calls GetActionChunk. `policy`: which of rayward's policies; other servers do not read it."""

    def __init__(self, channel: Any, number: int, policy: str) -> None:
        self._stub: Any = RobotPolicyServiceStub(channel)
        self._metadata = (("x-policy", policy),)
        self._seen = message(number)

    async def ask(self, noise_seed: int | None = None) -> Actions:
        self._seen.request_id = uuid.uuid4().hex
        self._seen.ClearField("noise_seed")
        if noise_seed is not None:
            self._seen.noise_seed = noise_seed
        answer = await self._stub.GetActionChunk(self._seen, metadata=self._metadata, timeout=ANSWER_S)
        assert answer.request_id == self._seen.request_id
        return np.array([row.values for row in answer.action_chunk], np.float32)


class SocketRobot:
    def __init__(self, connection: ClientConnection, number: int) -> None:
        frame, state, prompt = observation(number)
        self._connection = connection
        self._seen = {"observation/image": frame, "observation/state": state, "prompt": prompt}

    async def ask(self, noise_seed: int | None = None) -> Actions:
        seen = self._seen if noise_seed is None else {**self._seen, "noise_seed": noise_seed}
        await self._connection.send(packed(seen))
        async with asyncio.timeout(ANSWER_S):
            answer = await self._connection.recv()
        assert isinstance(answer, bytes), answer  # a failure is told as text
        return np.array(unpacked(answer)["actions"], np.float32)


@asynccontextmanager
async def grpc_robots(count: int, port: int, policy: str = "") -> AsyncIterator[list[Robot]]:
    """Each with a connection of its own."""
    async with AsyncExitStack() as stack:
        channels = [await stack.enter_async_context(own_channel(port)) for _ in range(count)]
        yield [GrpcRobot(channel, number, policy) for number, channel in enumerate(channels)]


def own_channel(port: int) -> Any:
    """With a connection of its own, which channels of one process with the same options share otherwise."""
    return grpc.aio.insecure_channel(f"127.0.0.1:{port}", [("grpc.use_local_subchannel_pool", 1)])


@asynccontextmanager
async def socket_robots(count: int, port: int, policy: str = "") -> AsyncIterator[list[Robot]]:
    """Each with a connection of its own."""
    url = f"ws://127.0.0.1:{port}/" + (f"?policy={policy}" if policy else "")
    async with AsyncExitStack() as stack:
        robots: list[Robot] = []
        for number in range(count):
            connection = await stack.enter_async_context(connect(url, compression=None, max_size=None))
            await connection.recv()  # the server's metadata
            robots.append(SocketRobot(connection, number))
        yield robots


def message(number: int) -> pb.ObservationRequest:
    """What robot `number` sends over gRPC, but for the id."""
    frame, state, prompt = observation(number)
    image = pb.CameraImage(image_data=jpeg(frame), encoding="jpeg")
    return pb.ObservationRequest(images=[image], robot_state=pb.RobotState(state=state.tolist()), prompt=prompt)


def jpeg(frame: Frame) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


async def rate(asks: Sequence[Ask], seconds: float) -> float:
    """Answers/s of a closed loop: each client asks again once it is answered, for at least `seconds`."""
    began = time.perf_counter()
    answered = 0

    async def client(ask: Ask) -> None:
        nonlocal answered
        while time.perf_counter() < began + seconds:
            await ask()
            answered += 1

    async with asyncio.TaskGroup() as clients:
        for ask in asks:
            clients.create_task(client(ask))
    return answered / (time.perf_counter() - began)
