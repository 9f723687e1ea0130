"""The servers without batches answer as the policy does: only so is a comparison with them one of servers."""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import partial

import grpc
import numpy as np
import pytest
from PIL import Image
from websockets.asyncio.server import serve

from benchmarks.servers.inline_websocket import answer_all
from benchmarks.servers.locked_grpc import RobotPolicyServer
from benchmarks.servers.robot_clients import grpc_robots, jpeg, socket_robots
from benchmarks.servers.robot_policy import SinglePolicy, checkpoint, observation
from deployments.protocol.policy_pb2_grpc import add_RobotPolicyServiceServicer_to_server

SEED = 7


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SinglePolicy]:
    import torch

    threads = torch.get_num_threads()
    yield SinglePolicy(checkpoint(tmp_path_factory.mktemp("robot") / "checkpoint"), threads=1)
    torch.set_num_threads(threads)


async def test_over_grpc_each_robot_gets_the_chunk_of_its_own_observation(policy: SinglePolicy) -> None:
    server = grpc.aio.server()
    add_RobotPolicyServiceServicer_to_server(RobotPolicyServer(policy), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc_robots(2, port) as robots:
            chunks = [await robot.ask(SEED) for robot in robots]
    finally:
        await server.stop(None)

    expected = []
    for number in range(2):
        frame, state, prompt = observation(number)
        decoded = np.asarray(Image.open(io.BytesIO(jpeg(frame))).convert("RGB"))
        expected.append(policy.infer(decoded, state, prompt, SEED))
    assert [chunk.tolist() for chunk in chunks] == [chunk.tolist() for chunk in expected]


async def test_over_websocket_each_robot_gets_the_chunk_of_its_own_observation(policy: SinglePolicy) -> None:
    async with serve(partial(answer_all, policy=policy), "127.0.0.1", 0, compression=None) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        async with socket_robots(2, port) as robots:
            chunks = [await robot.ask(SEED) for robot in robots]

    expected = [policy.infer(*observation(number), noise_seed=SEED) for number in range(2)]
    assert [chunk.tolist() for chunk in chunks] == [chunk.tolist() for chunk in expected]
