"""What a request costs above the engine's work, one client: `python -m benchmarks.serve_overhead [--check]`.

The tiny robot policy in one application; each dialect sends the same 256x256 frame, spelled before the clock starts,
on a connection that is open. Added time: from the client's first byte to the whole answer, less the engine's pass,
which the answer tells. The dialects take turns.
"""

from __future__ import annotations

import base64
import io
import queue
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import grpc
import httpx
import numpy as np
import orjson
from PIL import Image
from websockets.sync.client import connect

from benchmarks.common import Figure, options, report
from configs.serving import ServeConfig
from deployments.protocol import policy_pb2 as pb
from deployments.protocol.msgpack_numpy import packed, unpacked
from deployments.protocol.policy_pb2_grpc import RobotPolicyServiceStub
from training.cluster import application, ports, ray_session

SIDE = 256
ADDED_P50_MS, ADDED_P99_MS, NESTED_P50_MS = 2.0, 6.0, 10.0
Ask = Callable[[], float]  # one request -> milliseconds of the engine's pass


def frame() -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(frame()).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def http(stack: ExitStack, port: int, image: Any) -> Ask:
    client = stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30))
    body = orjson.dumps({"image": image, "instruction": "reach", "state": [0.0] * 4})

    def ask() -> float:
        answer = client.post("/act?format=dict", content=body)
        answer.raise_for_status()
        return float(answer.json()["timing_ms"]["infer"])

    return ask


def openpi(stack: ExitStack, port: int) -> Ask:
    socket = stack.enter_context(connect(f"ws://127.0.0.1:{port}/", compression=None, max_size=None))
    socket.recv(timeout=30)
    message = packed({"observation/image": frame(), "observation/state": np.zeros(4), "prompt": "reach"})

    def ask() -> float:
        socket.send(message)
        answer = unpacked(bytes(socket.recv(timeout=30)))  # type: ignore[arg-type]
        return float(answer["server_timing"]["infer_ms"])

    return ask


def observation() -> pb.ObservationRequest:
    image = pb.CameraImage(image_data=jpeg(), encoding="jpeg")
    state = pb.RobotState(state=[0.0] * 4)
    return pb.ObservationRequest(images=[image], robot_state=state, prompt="reach", request_id=uuid.uuid4().hex)


def grpc_unary(stub: Any) -> Ask:
    return lambda: float(stub.GetActionChunk(observation(), timeout=30).inference_time_ms)


def grpc_stream(stub: Any) -> Ask:
    waiting: queue.SimpleQueue[pb.ObservationRequest | None] = queue.SimpleQueue()

    def observations() -> Iterator[pb.ObservationRequest]:
        while (message := waiting.get()) is not None:
            yield message

    answers = stub.StreamActionChunks(observations())

    def ask() -> float:
        waiting.put(observation())
        return float(next(answers).inference_time_ms)

    return ask


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument("--requests", type=int, default=400, help="of each dialect; the first tenth is not counted")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        http_port, grpc_port = ports.free_port(), ports.free_port()
        policy = {"kind": "chunks", "checkpoint": "tiny:robot", "device": "cpu", "replicas": {"drain_s": 1}}
        config = ServeConfig.parse(
            {"http": {"port": http_port}, "grpc": {"port": grpc_port}, "policies": [policy], "storage_path": folder}
        )
        stack.enter_context(ray_session.ray_session())
        stack.enter_context(application.application(config))
        stub: Any = RobotPolicyServiceStub(stack.enter_context(grpc.insecure_channel(f"127.0.0.1:{grpc_port}")))  # type: ignore[no-untyped-call]
        asks = {
            "HTTP /act, base64 JPEG": http(stack, http_port, base64.b64encode(jpeg()).decode()),
            "HTTP /act, nested list": http(stack, http_port, frame().tolist()),
            "WebSocket": openpi(stack, http_port),
            "gRPC unary": grpc_unary(stub),
            "gRPC stream": grpc_stream(stub),
        }
        added = measured(asks, chosen.requests)
    report("serve_overhead", [figure for name, values in added.items() for figure in figures(name, values)], chosen)


def measured(asks: dict[str, Ask], requests: int) -> dict[str, list[float]]:
    """Added milliseconds of each request, by dialect."""
    added: dict[str, list[float]] = {name: [] for name in asks}
    for number in range(requests):
        for name, ask in asks.items():
            began = time.perf_counter()
            infer_ms = ask()
            if number >= requests // 10:
                added[name].append((time.perf_counter() - began) * 1e3 - infer_ms)
    return added


def figures(name: str, values: list[float]) -> list[Figure]:
    nested = "nested" in name
    p50, p99 = statistics.median(values), statistics.quantiles(values, n=100)[98]
    return [
        Figure(f"{name}, p50", p50, "ms", NESTED_P50_MS if nested else ADDED_P50_MS, lower_is_better=True),
        Figure(f"{name}, p99", p99, "ms", None if nested else ADDED_P99_MS, lower_is_better=True),
    ]


if __name__ == "__main__":
    main()
