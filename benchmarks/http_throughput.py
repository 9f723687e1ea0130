"""The OpenAI routes against vLLM's own HTTP server and ray.serve.llm: `python -m benchmarks.http_throughput [--check]`.

The same requests at concurrency 64, in turns, by one client (aiohttp) on the same machine; each side has one engine
with the same settings. A ratio is the median over the rounds, against the side that is best on that route.
"""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.common import Figure, options, report
from benchmarks.engines import Load, at_concurrency, engine_config, tiny_model
from benchmarks.servers.openai import ray_serve_llm, vllm_server
from configs.training import TrainConfig
from training.cluster import application, ports, ray_session

LOAD = Load("120 + 16 tokens", 120, 16, 64, 500)
LETTERS = 60  # of a chat's one message, with a space before each: 60 to 120 tokens
OURS, THEIRS = "rayward", ("vLLM", "ray.serve.llm")
END_OF_STREAM = b"data: [DONE]"

Body = dict[str, Any]
Rates = dict[tuple[str, str], list[float]]  # by route and side, one per round


@dataclass(frozen=True)
class Route:
    path: str
    content: Callable[[list[int]], Body]  # what differs between the routes, of a prompt's tokens
    stream: bool

    def body(self, prompt: list[int]) -> Body:
        body = {"model": "policy", "max_tokens": LOAD.answer_tokens, "temperature": 1.0, "ignore_eos": True}
        streamed = {"stream": True, "stream_options": {"include_usage": True}} if self.stream else {}
        return body | self.content(prompt) | streamed


def as_tokens(prompt: list[int]) -> Body:
    """Token ids, so that all sides get exactly as many."""
    return {"prompt": prompt}


def as_chat(prompt: list[int]) -> Body:
    rng = random.Random(str(prompt))
    text = "".join(f" {rng.choice('abcdefghijklmnopqrstuvwxyz')}" for _ in range(LETTERS))
    return {"messages": [{"role": "user", "content": text}]}


ROUTES = {
    "completions": Route("/v1/completions", as_tokens, stream=False),
    "completions-stream": Route("/v1/completions", as_tokens, stream=True),
    "chat": Route("/v1/chat/completions", as_chat, stream=False),
    "chat-stream": Route("/v1/chat/completions", as_chat, stream=True),
}


async def rate(address: str, route: Route, load: Load, round_: int) -> float:
    """Requests/s of the load."""
    connector = aiohttp.TCPConnector(limit=load.concurrency)
    timeout = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(address, connector=connector, timeout=timeout) as session:

        async def one(prompt: list[int]) -> None:
            async with session.post(route.path, json=route.body(prompt)) as answer:
                body = await answer.read()
            assert answer.status == 200, body[:1000]
            usage = _usage(body, route.stream)
            assert usage["completion_tokens"] == load.answer_tokens, usage

        return await at_concurrency(one, load.prompts(round_), load.concurrency)


def _usage(body: bytes, stream: bool) -> dict[str, Any]:
    """Of a whole answer; of a stream, which must have come to its end, the last event before it says it."""
    if stream:
        events, end, _ = body.rpartition(END_OF_STREAM)
        assert end, f"the stream broke off: {body[-1000:]!r}"
        body = events.rstrip().rpartition(b"data: ")[2]
    usage: dict[str, Any] = json.loads(body)["usage"]
    return usage


def measured(addresses: dict[str, str], routes: list[str], rounds: int, requests: int) -> Rates:
    rates: Rates = {(route, side): [] for route in routes for side in addresses}
    for round_ in range(-1, rounds):  # the first warms up and is not counted
        load = replace(LOAD, requests=requests if round_ >= 0 else LOAD.concurrency)
        for route in routes:
            for side in addresses if round_ % 2 else reversed(addresses):
                value = asyncio.run(rate(addresses[side], ROUTES[route], load, round_))
                if round_ >= 0:
                    rates[route, side].append(value)
    return rates


def figures(rates: Rates, route: str) -> list[Figure]:
    medians = {side: statistics.median(values) for (name, side), values in rates.items() if name == route}
    best = max(THEIRS, key=medians.__getitem__)
    ratio = statistics.median(a / b for a, b in zip(rates[route, OURS], rates[route, best], strict=True))
    each = [Figure(f"{route}, {side}", value, "requests/s") for side, value in medians.items()]
    return [*each, Figure(f"{route}, {OURS} / {best}", ratio, "ratio", 1.0)]


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument("--routes", nargs="+", choices=ROUTES, default=list(ROUTES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=LOAD.requests, help="of each side and route, per round")
    chosen = parser.parse_args()
    config = TrainConfig.parse({"serving": {"engine": engine_config(LOAD).model_dump()}})
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        model = tiny_model(Path(folder) / "model")
        theirs = [stack.enter_context(start(model, LOAD)) for start in (vllm_server, ray_serve_llm)]
        port = ports.free_port()
        stack.enter_context(ray_session.ray_session())
        stack.enter_context(application.application(application.serve_config(config, str(model), None, port=port)))
        addresses = {OURS: f"http://127.0.0.1:{port}", **dict(zip(THEIRS, theirs, strict=True))}
        rates = measured(addresses, chosen.routes, chosen.rounds, chosen.requests)
    report("http_throughput", [figure for route in chosen.routes for figure in figures(rates, route)], chosen)


if __name__ == "__main__":
    main()
