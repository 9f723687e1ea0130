"""`/v1/completions` against vLLM's own HTTP server: `python -m benchmarks.http_throughput [--check]`.

The same requests at concurrency 64, in turns, by one client (aiohttp) on the same machine.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp

from benchmarks.common import Figure, options, report
from benchmarks.engines import Load, at_concurrency, engine_config, tiny_model
from configs.training import TrainConfig
from training.cluster import application, ports, ray_session

LOAD = Load("120 + 16 tokens", 120, 16, 64, 1000)
START_S = 180.0


@contextmanager
def vllm_server(model: Path) -> Iterator[str]:
    """vLLM's OpenAI server as a process of its own; yields its address once it is healthy."""
    port, config = ports.free_port(), engine_config(LOAD)
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model), "--port", str(port)]
    command += ["--dtype", "float32", "--max-model-len", str(config.max_model_len), "--enforce-eager"]
    command += ["--max-num-seqs", str(config.max_num_seqs), "--no-enable-chunked-prefill", "--host", "127.0.0.1"]
    # Its default, 0.92, refuses to start on a CPU machine on which anything else holds memory.
    command += ["--gpu-memory-utilization", "0.5"]
    command += ["--max-num-batched-tokens", str(config.max_num_batched_tokens), "--disable-uvicorn-access-log"]
    command += ["--generation-config", "vllm", "--served-model-name", "policy", "--disable-log-stats"]
    server = subprocess.Popen(command, env=os.environ | {"VLLM_LOGGING_LEVEL": "ERROR"})
    try:
        asyncio.run(healthy(f"http://127.0.0.1:{port}", server))
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(timeout=30)


async def healthy(address: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_S
    async with aiohttp.ClientSession() as session:
        while time.monotonic() < deadline:
            if server.poll() is not None:
                raise RuntimeError(f"vLLM's server ended with exit code {server.returncode}")
            try:
                async with session.get(f"{address}/health") as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientConnectionError:
                pass
            await asyncio.sleep(0.5)
    raise TimeoutError(f"vLLM's server was not healthy within {START_S:g} s")


async def rate(address: str, round_: int) -> float:
    """Requests/s of the load; the prompts are token ids, so that both sides get exactly as many."""
    connector = aiohttp.TCPConnector(limit=LOAD.concurrency)
    timeout = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:

        async def one(prompt: list[int]) -> None:
            body = {
                "model": "policy",
                "prompt": prompt,
                "max_tokens": LOAD.answer_tokens,
                "temperature": 1.0,
                "ignore_eos": True,
            }
            async with session.post(f"{address}/v1/completions", json=body) as answer:
                payload = await answer.json()
                assert answer.status == 200, payload
                assert payload["usage"]["completion_tokens"] == LOAD.answer_tokens, payload

        return await at_concurrency(one, LOAD.prompts(round_), LOAD.concurrency)


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument("--rounds", type=int, default=9)
    chosen = parser.parse_args()
    config = TrainConfig.parse({"serving": {"engine": engine_config(LOAD).model_dump()}})
    rates: dict[str, list[float]] = {"rayward": [], "vLLM": []}
    with tempfile.TemporaryDirectory() as folder:
        model = tiny_model(Path(folder) / "model")
        port = ports.free_port()
        serve_config = application.serve_config(config, str(model), None, port=port)
        with ray_session.ray_session(), application.application(serve_config), vllm_server(model) as theirs:
            sides = {"rayward": f"http://127.0.0.1:{port}", "vLLM": theirs}
            for round_ in range(-1, chosen.rounds):  # the first warms up and is not counted
                for side in sides if round_ % 2 else reversed(sides):
                    value = asyncio.run(rate(sides[side], round_))
                    if round_ >= 0:
                        rates[side].append(value)
    figures = [Figure(side, statistics.median(values), "requests/s") for side, values in rates.items()]
    ratio = statistics.median(a / b for a, b in zip(rates["rayward"], rates["vLLM"], strict=True))
    report("http_throughput", [*figures, Figure("rayward / vLLM", ratio, "ratio", 1.0)], chosen)


if __name__ == "__main__":
    main()
