"""The policies of `serve_under_load`: how each is served, what its weights are, and how its clients ask.

Both are slow for their size (few seats, many steps), so that their engines are what is overloaded: on two cores, which
the clients share, requests that cost an engine little would measure how fast HTTP is parsed.
"""

from __future__ import annotations

import asyncio
import base64
import io
import itertools
import uuid
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from PIL import Image

from benchmarks.load import NO_ANSWER, Answer, Ask
from deployments.client.act import AsyncActClient
from deployments.client.http import PolicyClient
from deployments.client.observing import Seen
from deployments.errors import PolicyError

REPLICAS = 2
PROMPT_TOKENS, ANSWER_TOKENS = 64, 32
ROBOTS = 128  # clients with retries; each is one robot, or one thread
PATIENCE_S = 10.0  # of a client with retries, all its tries together; of one without, beyond its deadline


class Loaded(ABC):
    """One policy under load."""

    name: str
    path: str

    def settings(self, weights_root: str) -> dict[str, Any]:
        """As an entry of ServeConfig.policies."""
        replicas = {"min_replicas": REPLICAS, "max_replicas": REPLICAS, "num_cpus": 0.5, "drain_s": 1}
        common = {"name": self.name, "weights_root": weights_root, "follow": True, "follow_period_s": 0.2}
        return common | {"replicas": replicas, "request_deadline_s": PATIENCE_S} | self._own_settings()

    @abstractmethod
    def _own_settings(self) -> dict[str, Any]: ...

    @abstractmethod
    def folder(self, policy: Any) -> Path:
        """Where the weights lie that the policy starts with."""

    @abstractmethod
    def body(self) -> dict[str, Any]:
        """A request, never the same twice."""

    @abstractmethod
    async def patient(self, stack: AsyncExitStack, address: str) -> Ask:
        """Clients of `deployments.client`, with their retries."""

    async def plain(self, stack: AsyncExitStack, address: str, deadline_s: float) -> Ask:
        """Clients that try once, and tell the server how long they wait."""
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=deadline_s + PATIENCE_S)
        session = await stack.enter_async_context(aiohttp.ClientSession(address, connector=connector, timeout=timeout))

        async def ask() -> Answer:
            headers = {"x-timeout-s": str(deadline_s), "x-request-id": uuid.uuid4().hex}
            try:
                async with session.post(self.path, json=self.body(), headers=headers) as answer:
                    await answer.read()
                    version = int(answer.headers.get("x-weight-version", 0))
                    return Answer(answer.status, "retry-after" in answer.headers, version)
            except (aiohttp.ClientError, TimeoutError):
                return Answer(NO_ANSWER)

        return ask


class Text(Loaded):
    """The tiny language model, over `/v1/completions`."""

    name, path = "text", "/v1/completions"

    def __init__(self) -> None:
        self._rng = np.random.default_rng(0)

    def _own_settings(self) -> dict[str, Any]:
        engine = {"dtype": "float32", "max_model_len": 256, "max_num_seqs": 4, "device": "cpu"}
        return {"kind": "vllm", "model": "tiny:text", "engine": engine}

    def folder(self, policy: Any) -> Path:
        return Path(policy.model)

    def body(self) -> dict[str, Any]:
        prompt = self._rng.integers(20, 250, PROMPT_TOKENS).tolist()
        return {"model": self.name, "prompt": prompt, "max_tokens": ANSWER_TOKENS, "ignore_eos": True}

    async def patient(self, stack: AsyncExitStack, address: str) -> Ask:
        client = stack.enter_context(PolicyClient(address, timeout_s=PATIENCE_S))
        threads = stack.enter_context(ThreadPoolExecutor(ROBOTS))

        def complete() -> int:
            body = self.body()
            return int(client.complete(**body)["weight_version"])

        return lambda: told(asyncio.get_running_loop().run_in_executor(threads, complete))


class Chunks(Loaded):
    """The tiny robot policy, over `/act`."""

    name, path = "robot", "/act?format=dict"

    def __init__(self) -> None:
        self._frame = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(self._frame).save(buffer, "JPEG", quality=90)
        self._image = base64.b64encode(buffer.getvalue()).decode()

    def _own_settings(self) -> dict[str, Any]:
        return {"kind": "chunks", "checkpoint": "tiny:robot", "device": "cpu", "max_batch": 4, "flow_steps": 50}

    def folder(self, policy: Any) -> Path:
        return Path(policy.checkpoint)

    def body(self) -> dict[str, Any]:
        return {"model": self.name, "image": self._image, "instruction": "reach", "state": [0.0] * 4}

    async def patient(self, stack: AsyncExitStack, address: str) -> Ask:
        robots = [
            await stack.enter_async_context(AsyncActClient(address, policy=self.name, timeout_s=PATIENCE_S))
            for _ in range(ROBOTS)
        ]
        turns = itertools.cycle(robots)

        async def act() -> int:
            seen = Seen(images=[self._frame], instruction="reach", state=[0.0] * 4)
            return (await next(turns).act(seen)).weight_version

        return lambda: told(act())


async def told(version: Awaitable[int]) -> Answer:
    """What a client of ours was told after its last try."""
    try:
        return Answer(200, version=await version)
    except PolicyError as error:
        return Answer(error.http_status, error.retry_after_s is not None)


POLICIES: dict[str, Callable[[], Loaded]] = {"text": Text, "chunks": Chunks}
