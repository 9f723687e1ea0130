"""The servers that rayward replaces, side by side: `python -m benchmarks.serve_side_by_side [--check]`.

16 clients ask in a closed loop. The others are the servers of `benchmarks/servers`, each a process of its own with
the same checkpoint in float32 and as many torch threads. The sides take turns; a ratio is the median of the rounds'.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import statistics
import tempfile
import uuid
from argparse import Namespace
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from benchmarks.common import Figure, options, report
from benchmarks.servers.process import THREADS, running
from benchmarks.servers.robot_clients import Ask, Robot, grpc_robots, jpeg, rate, socket_robots
from benchmarks.servers.robot_policy import FLOW_STEPS, SinglePolicy, checkpoint, observation
from configs.serving import ServeConfig
from training.cluster import application, ports, ray_session

CLIENTS = 16
ANSWER_S = 300.0
MOST_LANGUAGE_ROUNDS = 3  # the tutorial's server takes a quarter of a minute to answer all clients once
TUTORIAL_BAR, WITHOUT_BATCHES_BAR, WITH_BATCHES_BAR = 4.0, 1.0, 3.0
SEED = 7  # of the answer that all sides must give alike
REPLICAS = {"num_cpus": THREADS, "drain_s": 1}


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of a side in a round")
    parser.add_argument("--only", choices=("language", "robots"), help="one half of the comparison")
    chosen = parser.parse_args()
    figures: list[Figure] = []
    for name, half in (("robots", robots), ("language", language)):
        if chosen.only in (None, name):
            with tempfile.TemporaryDirectory() as folder:
                figures += half(Path(folder), chosen)
    report("serve_side_by_side", figures, chosen)


# -- a vision-language policy over HTTP --------------------------------------------------------------------------------


def language(folder: Path, chosen: Namespace) -> list[Figure]:
    """A tiny Qwen2-VL: `POST /act` against a tutorial's server."""
    engine = {"device": "cpu", "dtype": "float32", "max_model_len": 4096, "max_num_seqs": CLIENTS}
    policy = {
        "model": "tiny:vision",
        "engine": {**engine, "cpu_kv_cache_gib": 0.125, "image_cache_gib": 0.05},
        "act": {"arm": {"max_tokens": 640, "max_history_steps": 0}},  # the tutorial's server has no history
        "replicas": REPLICAS,
        "request_deadline_s": ANSWER_S,
    }
    port = ports.free_port()
    config = ServeConfig.parse({"http": {"port": port}, "policies": [policy], "storage_path": str(folder)})
    with ExitStack() as stack:
        stack.enter_context(ray_session.ray_session())
        stack.enter_context(application.application(config))
        tutorial = stack.enter_context(running("tutorial_http", str(folder / "models" / "tiny-vision")))
        new_tokens, rates = asyncio.run(language_rates(port, tutorial, chosen))
    return [
        Figure("tokens of an answer", new_tokens, "tokens"),
        Figure("HTTP, tutorial's server", statistics.median(rates["tutorial"]), "answers/s"),
        Figure("HTTP, rayward", statistics.median(rates["rayward"]), "answers/s"),
        Figure("HTTP, rayward / tutorial", ratio(rates, "rayward", "tutorial"), "ratio", TUTORIAL_BAR),
    ]


async def language_rates(ours: int, theirs: int, chosen: Namespace) -> tuple[int, dict[str, list[float]]]:
    """(tokens of an answer, rates). Our answers are as long as the policy makes them, theirs as the mean of ours."""
    async with arms(ours) as rayward, arms(theirs) as tutorial:
        answers = await asyncio.gather(*(arm.act() for arm in rayward))
        new_tokens = round(statistics.mean(map(tokens_of, answers)))
        sides: dict[str, Sequence[Ask]] = {
            "tutorial": [partial(arm.predict, new_tokens) for arm in tutorial],
            "rayward": [arm.act for arm in rayward],
        }
        return new_tokens, await alternated(sides, min(MOST_LANGUAGE_ROUNDS, chosen.rounds), chosen.seconds)


class Arm:
    """One client with a connection of its own."""

    def __init__(self, client: httpx.AsyncClient, number: int) -> None:
        self._client = client
        self._numbers = itertools.count(number, CLIENTS)
        self._session = {"x-session-id": uuid.uuid4().hex}

    async def act(self) -> str:
        """Of rayward; what the model said."""
        answer = await self._client.post("/act?format=dict", json=self._question(), headers=self._session)
        answer.raise_for_status()
        assert answer.json()["parse_ok"], answer.text
        return str(answer.json()["info"]["vlm_response"])

    async def predict(self, new_tokens: int) -> None:
        """Of the tutorial's server."""
        answer = await self._client.post("/predict", json={**self._question(), "new_tokens": new_tokens})
        answer.raise_for_status()

    def _question(self) -> dict[str, str]:
        """Another one each time: no cache of prompts or pictures may answer for the model."""
        frame, _, instruction = observation(next(self._numbers))
        return {"image": base64.b64encode(jpeg(frame)).decode(), "instruction": instruction}


@asynccontextmanager
async def arms(port: int) -> AsyncIterator[list[Arm]]:
    async with AsyncExitStack() as stack:
        clients = [httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=ANSWER_S) for _ in range(CLIENTS)]
        yield [Arm(await stack.enter_async_context(client), number) for number, client in enumerate(clients)]


def tokens_of(answer: str) -> int:
    """The tiny model has a token per byte, and one for the end."""
    return len(answer.encode()) + 1


# -- a chunk policy over gRPC and WebSocket ----------------------------------------------------------------------------


def robots(folder: Path, chosen: Namespace) -> list[Figure]:
    """The reference flow-matching policy: RobotPolicyService and openpi's protocol."""
    model = checkpoint(folder / "robot")
    alone = SinglePolicy(model, THREADS).pass_ms((1, 8, CLIENTS))
    http, grpc = ports.free_port(), ports.free_port()
    policies = [chunk_policy(model, "batches", CLIENTS, 2.0), chunk_policy(model, "single", 1, 0.0)]
    config = ServeConfig.parse(
        {"http": {"port": http}, "grpc": {"port": grpc}, "policies": policies, "storage_path": str(folder)}
    )
    with ExitStack() as stack:
        stack.enter_context(ray_session.ray_session())
        stack.enter_context(application.application(config))
        locked = stack.enter_context(running("locked_grpc", str(model)))
        inline = stack.enter_context(running("inline_websocket", str(model)))
        rates = asyncio.run(robot_rates(http, grpc, locked, inline, chosen))
    passes = [Figure(f"forward pass of {size}, alone", value, "ms") for size, value in alone.items()]
    return [*passes, *robot_figures(rates, "gRPC", "one lock"), *robot_figures(rates, "WebSocket", "inline")]


def chunk_policy(model: Path, name: str, max_batch: int, window_ms: float) -> dict[str, Any]:
    passes = {"max_batch": max_batch, "batch_window_ms": window_ms, "flow_steps": FLOW_STEPS}
    return {"name": name, "kind": "chunks", "checkpoint": str(model), "device": "cpu", "replicas": REPLICAS, **passes}


async def robot_rates(http: int, grpc: int, locked: int, inline: int, chosen: Namespace) -> dict[str, list[float]]:
    connected = {
        "gRPC, one lock": grpc_robots(CLIENTS, locked),
        "gRPC, rayward without batches": grpc_robots(CLIENTS, grpc, "single"),
        "gRPC, rayward with batches": grpc_robots(CLIENTS, grpc, "batches"),
        "WebSocket, inline": socket_robots(CLIENTS, inline),
        "WebSocket, rayward without batches": socket_robots(CLIENTS, http, "single"),
        "WebSocket, rayward with batches": socket_robots(CLIENTS, http, "batches"),
    }
    async with AsyncExitStack() as stack:
        sides = {name: await stack.enter_async_context(side) for name, side in connected.items()}
        await check_alike({name: side[0] for name, side in sides.items()})
        asks = {name: [robot.ask for robot in side] for name, side in sides.items()}
        return await alternated(asks, chosen.rounds, chosen.seconds)


async def check_alike(sides: Mapping[str, Robot]) -> None:
    """The same observation and noise have the same answer on each side of a protocol: it is the same policy."""
    answers = {name: await robot.ask(SEED) for name, robot in sides.items()}
    for protocol in ("gRPC", "WebSocket"):
        first, *others = (answer for name, answer in answers.items() if name.startswith(protocol))
        assert all((first == other).all() for other in others), f"{protocol}: the sides answer differently: {answers}"


def robot_figures(rates: Mapping[str, list[float]], protocol: str, other: str) -> list[Figure]:
    """Rates of the three sides, then ours over theirs."""
    theirs, ours = f"{protocol}, {other}", f"{protocol}, rayward"
    bars = {"without": WITHOUT_BATCHES_BAR, "with": WITH_BATCHES_BAR}
    sides = [theirs, *(f"{ours} {which} batches" for which in bars)]
    return [
        *(Figure(side, statistics.median(rates[side]), "chunks/s") for side in sides),
        *(
            Figure(f"{ours} {which} batches / {other}", ratio(rates, f"{ours} {which} batches", theirs), "ratio", bar)
            for which, bar in bars.items()
        ),
    ]


# -- both --------------------------------------------------------------------------------------------------------------


async def alternated(sides: Mapping[str, Sequence[Ask]], rounds: int, seconds: float) -> dict[str, list[float]]:
    """Answers/s by side, one entry a round; the first round warms up and is not counted."""
    rates: dict[str, list[float]] = {side: [] for side in sides}
    for round_ in range(-1, rounds):
        for side in sides if round_ % 2 else reversed(sides):
            answers_per_s = await rate(sides[side], seconds if round_ >= 0 else 1.0)
            if round_ >= 0:
                rates[side].append(answers_per_s)
    return rates


def ratio(rates: Mapping[str, list[float]], ours: str, theirs: str) -> float:
    return statistics.median(a / b for a, b in zip(rates[ours], rates[theirs], strict=True))


if __name__ == "__main__":
    main()
