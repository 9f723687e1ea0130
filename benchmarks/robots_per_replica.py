"""How many robots one replica holds: `python -m benchmarks.robots_per_replica`. Reported, there is no bar.

Each robot asks for 10 chunks a second on a gRPC stream of its own, whether its answers come or not (open loop); the
robots' clocks are spread evenly over the period. Robots are added in steps. A number of robots is held when 99 % of
the answers come within the budget, counted from when the observation was due.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
import uuid
from argparse import Namespace
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.common import Figure, options, report
from benchmarks.serve_side_by_side import chunk_policy
from benchmarks.servers.process import THREADS
from benchmarks.servers.robot_clients import message, own_channel
from benchmarks.servers.robot_policy import SinglePolicy, checkpoint
from configs.serving import ServeConfig
from deployments.protocol import policy_pb2 as pb
from deployments.protocol.policy_pb2_grpc import RobotPolicyServiceStub
from training.cluster import application, ports, ray_session

PERIOD_S = 0.1  # of a robot; also the budget of an answer: then the next observation is there
WARM_S = 1.0  # of each step, not counted
MAX_BATCH = 16
FAILURES_IN_A_ROW = 2  # after which no more robots are tried: a single one may be the machine's


@dataclass(frozen=True)
class Load:
    """Milliseconds from when each observation was due to its answer, with so many robots; what was not answered at the
    end counts with the time until then, which is longer than the budget."""

    robots: int
    waits_ms: list[float]

    @property
    def p50_ms(self) -> float:
        return statistics.median(self.waits_ms)

    @property
    def p99_ms(self) -> float:
        return statistics.quantiles(self.waits_ms, n=100)[98]

    @property
    def late(self) -> int:
        return sum(wait > PERIOD_S * 1e3 for wait in self.waits_ms)

    @property
    def held(self) -> bool:
        return self.late <= 0.01 * len(self.waits_ms)


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument("--step", type=int, default=2, help="robots that are added at a time")
    parser.add_argument("--most", type=int, default=64, help="robots at which the search ends")
    parser.add_argument("--seconds", type=float, default=5.0, help="of a number of robots, after the first second")
    chosen = parser.parse_args()
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        model, port = checkpoint(Path(folder) / "robot"), ports.free_port()
        alone = SinglePolicy(model, THREADS).pass_ms((1, 8))
        figures += [Figure(f"forward pass of {size}, alone", value, "ms") for size, value in alone.items()]
        policies = [chunk_policy(model, "single", 1, 0.0), chunk_policy(model, "batches", MAX_BATCH, 2.0)]
        config = ServeConfig.parse(
            {
                "http": {"port": ports.free_port()},
                "grpc": {"port": port},
                "policies": policies,
                "storage_path": folder,
            }
        )
        stack.enter_context(ray_session.ray_session())
        stack.enter_context(application.application(config))
        for policy, name in (("single", "without batches"), ("batches", "with batches")):
            figures += figures_of(name, asyncio.run(loads(port, policy, chosen)))
    report("robots_per_replica", figures, chosen)


def figures_of(name: str, tried: list[Load]) -> list[Figure]:
    """The largest number of robots that is held, and the next number that is not."""
    held = [load for load in tried if load.held]
    shown = held[-1:] + [load for load in tried if not load.held and load.robots > largest(held)][:1]
    figures = [Figure(f"{name}: robots held", largest(held), "robots")]
    for load in shown:
        where = f"{name}: {load.robots} robots"
        figures += [
            Figure(f"{where}, p50", load.p50_ms, "ms"),
            Figure(f"{where}, p99", load.p99_ms, "ms"),
            Figure(f"{where}, late", load.late, f"of {len(load.waits_ms)}"),
        ]
    return figures


def largest(held: list[Load]) -> int:
    return held[-1].robots if held else 0


async def loads(port: int, policy: str, chosen: Namespace) -> list[Load]:
    """More and more robots, until several numbers in a row are not held."""
    tried: list[Load] = []
    for robots in range(chosen.step, chosen.most + 1, chosen.step):
        tried.append(await load_of(robots, port, policy, chosen.seconds))
        print(f"{policy}: {robots} robots, p50 {tried[-1].p50_ms:.1f} ms, p99 {tried[-1].p99_ms:.1f} ms", flush=True)
        if not any(load.held for load in tried[-FAILURES_IN_A_ROW:]) and len(tried) >= FAILURES_IN_A_ROW:
            break
    return tried


async def load_of(robots: int, port: int, policy: str, seconds: float) -> Load:
    async with AsyncExitStack() as stack:
        channels = [await stack.enter_async_context(own_channel(port)) for _ in range(robots)]
        streams = [Stream(channel, number, policy) for number, channel in enumerate(channels)]
        began = time.perf_counter() + 0.2  # they connect in the second that is not counted
        counted = (began + WARM_S, began + WARM_S + seconds)
        async with asyncio.TaskGroup() as playing:
            for number, stream in enumerate(streams):
                playing.create_task(stream.play(began + PERIOD_S * number / robots, counted[1]))
    waits_ms = [wait for stream in streams for wait in stream.waits_ms(*counted)]
    return Load(robots, waits_ms)


class Stream:
    """One robot."""

    def __init__(self, channel: Any, number: int, policy: str) -> None:
        self._stub: Any = RobotPolicyServiceStub(channel)
        self._metadata = (("x-policy", policy),)
        self._seen = message(number)
        self._due_s: dict[str, float] = {}  # request id -> when its observation was due
        self._answered_s: dict[str, float] = {}

    async def play(self, first_s: float, end_s: float) -> None:
        """From `first_s` until `end_s`, and a budget longer for the last answers; seconds of `time.perf_counter`."""
        observations = range(int((end_s - first_s) / PERIOD_S) + 1)
        self._due_s = {uuid.uuid4().hex: first_s + PERIOD_S * number for number in observations}
        answers = self._stub.StreamActionChunks(self._observations(), metadata=self._metadata)
        try:
            async with asyncio.timeout(end_s + PERIOD_S - time.perf_counter()):
                async for answer in answers:
                    self._answered_s[answer.request_id] = time.perf_counter()
        except TimeoutError:
            answers.cancel()

    async def _observations(self) -> AsyncIterator[pb.ObservationRequest]:
        for request_id, due_s in self._due_s.items():
            await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
            self._seen.request_id = request_id
            yield self._seen

    def waits_ms(self, from_s: float, to_s: float) -> list[float]:
        """Of the observations that were due in that time."""
        over_s = time.perf_counter()
        return [
            (self._answered_s.get(request_id, over_s) - due_s) * 1e3
            for request_id, due_s in self._due_s.items()
            if from_s <= due_s < to_s
        ]


if __name__ == "__main__":
    main()
