"""A WebSocket policy server of the shape of openpi's: a connection's handler calls `infer` itself, in the event loop.

`python -m benchmarks.servers.inline_websocket PORT CHECKPOINT`. So one pass holds up all connections.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

import numpy as np
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from benchmarks.servers.process import THREADS
from benchmarks.servers.robot_policy import SinglePolicy
from deployments.protocol.msgpack_numpy import packed, unpacked


async def answer_all(connection: ServerConnection, policy: SinglePolicy) -> None:
    """One connection: metadata, then an answer to each observation until the client leaves."""
    await connection.send(packed({"name": "inline"}))
    prev_total_ms: float | None = None
    while True:
        try:
            frame = await connection.recv()
        except ConnectionClosed:
            return
        began = time.perf_counter()
        timing = {"prev_total_ms": prev_total_ms} if prev_total_ms is not None else {}
        observation: dict[str, Any] = unpacked(bytes(frame))  # type: ignore[arg-type]
        inferring = time.perf_counter()
        actions = policy.infer(
            observation["observation/image"],
            np.asarray(observation["observation/state"], np.float32),
            observation["prompt"],
            observation.get("noise_seed"),
        )
        timing["infer_ms"] = (time.perf_counter() - inferring) * 1e3
        await connection.send(packed({"actions": actions, "server_timing": timing}))
        prev_total_ms = (time.perf_counter() - began) * 1e3


async def main(port: int, folder: str) -> None:
    policy = SinglePolicy(folder, THREADS)

    async def handler(connection: ServerConnection) -> None:
        await answer_all(connection, policy)

    async with serve(handler, "127.0.0.1", port, compression=None, max_size=None) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
