"""RobotPolicyService on grpc.aio in the shape of OpenTau's server: the model runs in a worker thread, under a lock.

`python -m benchmarks.servers.locked_grpc PORT CHECKPOINT`. Each observation has a pass of its own.
"""

from __future__ import annotations

import asyncio
import io
import sys
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
from PIL import Image

from benchmarks.servers.process import THREADS
from benchmarks.servers.robot_policy import SinglePolicy
from deployments.protocol import policy_pb2 as pb
from deployments.protocol.policy_pb2_grpc import RobotPolicyServiceServicer, add_RobotPolicyServiceServicer_to_server

WORKERS = 4
MOST_BYTES = 100 * 2**20


class RobotPolicyServer(RobotPolicyServiceServicer):
    def __init__(self, policy: SinglePolicy) -> None:
        self._policy = policy
        self._one_pass = threading.Lock()
        self._workers = ThreadPoolExecutor(WORKERS)

    async def GetActionChunk(self, request: pb.ObservationRequest, context: Any) -> pb.ActionChunkResponse:
        return await asyncio.get_running_loop().run_in_executor(self._workers, self._answer, request)

    async def StreamActionChunks(
        self, request_iterator: AsyncIterator[pb.ObservationRequest], context: Any
    ) -> AsyncIterator[pb.ActionChunkResponse]:
        async for request in request_iterator:
            yield await self.GetActionChunk(request, context)

    def _answer(self, request: pb.ObservationRequest) -> pb.ActionChunkResponse:
        frame = np.asarray(Image.open(io.BytesIO(request.images[0].image_data)).convert("RGB"))
        state = np.asarray(request.robot_state.state, np.float32)
        seed = request.noise_seed if request.HasField("noise_seed") else None
        with self._one_pass:
            began = time.perf_counter()
            actions = self._policy.infer(frame, state, request.prompt, seed)
            infer_ms = (time.perf_counter() - began) * 1e3
        return pb.ActionChunkResponse(
            action_chunk=[pb.ActionVector(values=row.tolist()) for row in actions],
            timestamp_ns=time.time_ns(),
            request_id=request.request_id,
            inference_time_ms=infer_ms,
        )


async def serve(port: int, folder: str) -> None:
    policy = SinglePolicy(folder, THREADS)
    options = [("grpc.max_send_message_length", MOST_BYTES), ("grpc.max_receive_message_length", MOST_BYTES)]
    server = grpc.aio.server(options=options)
    add_RobotPolicyServiceServicer_to_server(RobotPolicyServer(policy), server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), sys.argv[2]))
