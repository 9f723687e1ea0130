"""Other servers of the OpenAI API as processes of their own, around the same engine settings as ours."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import aiohttp

from benchmarks.engines import Load, engine_config
from deployments.app import THROUGHPUT_SWITCHES
from training.cluster import ports

START_S = 240.0
END_S = 60.0


@contextmanager
def vllm_server(model: Path, load: Load) -> Iterator[str]:
    """vLLM's own server. Yields its address once it answers."""
    port, config = ports.free_port(), engine_config(load)
    command = ["-m", "vllm.entrypoints.openai.api_server", "--model", str(model), "--port", str(port)]
    command += ["--dtype", "float32", "--max-model-len", str(config.max_model_len), "--enforce-eager"]
    command += ["--max-num-seqs", str(config.max_num_seqs), "--no-enable-chunked-prefill", "--host", "127.0.0.1"]
    # Ours, too; by default its cache takes most of the machine, which two other engines share here.
    command += ["--kv-cache-memory-bytes", str(int(config.cpu_kv_cache_gib * 2**30)), "--gpu-memory-utilization", "0.1"]
    command += ["--max-num-batched-tokens", str(config.max_num_batched_tokens), "--disable-uvicorn-access-log"]
    command += ["--generation-config", "vllm", "--served-model-name", "policy", "--disable-log-stats"]
    with _process("vLLM's server", command, port, {"VLLM_LOGGING_LEVEL": "ERROR"}) as address:
        yield address


@contextmanager
def ray_serve_llm(model: Path, load: Load) -> Iterator[str]:
    """ray.serve.llm with direct streaming: HAProxy sends each request to the replica that its router names, and the
    replica answers with vLLM's routes. On a Ray of its own. Yields its address once it answers."""
    port = ports.free_port()
    command = ["-m", "benchmarks.servers.ray_serve_llm", str(model), str(port), str(load.concurrency)]
    switches = THROUGHPUT_SWITCHES | {"RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING": "1"}  # read when Serve is imported
    with _process("ray.serve.llm", command, port, switches) as address:
        yield address


@contextmanager
def _process(name: str, arguments: Sequence[str], port: int, environment: Mapping[str, str]) -> Iterator[str]:
    server = subprocess.Popen([sys.executable, *arguments], env={**os.environ, **environment})
    address = f"http://127.0.0.1:{port}"
    try:
        asyncio.run(_answering(name, address, server))
        yield address
    finally:
        server.terminate()
        try:
            server.wait(timeout=END_S)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


async def _answering(name: str, address: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_S
    async with aiohttp.ClientSession() as session:
        while time.monotonic() < deadline:
            if server.poll() is not None:
                raise RuntimeError(f"{name} ended with exit code {server.returncode}")
            try:
                async with session.get(f"{address}/v1/models") as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientConnectionError:
                pass  # not listening yet
            await asyncio.sleep(0.5)
    raise TimeoutError(f"{name} did not answer within {START_S:g} s")
