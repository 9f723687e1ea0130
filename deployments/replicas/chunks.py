"""The deployment of a chunk policy: each replica runs one engine that answers observations with chunks of actions."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ray.util import metrics

from configs.policies import ChunkPolicy
from deployments.chunks.fingerprint import fingerprint
from deployments.engines.base import ChunkEngine, StartChunkEngine
from deployments.engines.guarded import GuardedChunkEngine
from deployments.errors import PolicyError
from deployments.protocol.act import ChunkAnswer, ChunkRequest, ChunkResult, ChunkShape
from deployments.protocol.generate import GenerateFailure
from deployments.replicas.backlog import Backlog
from deployments.replicas.calls import Calls
from deployments.replicas.failures import failure
from deployments.replicas.hosted import HostedEngine
from deployments.replicas.node_port import listen_at_node
from deployments.replicas.once import Once


class ChunkReplica:
    """Owns one engine. It never answers with older weights than a request asks for, and gives a request that is sent
    again the same answer."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self,
        config: dict[str, Any],
        start_engine: StartChunkEngine,
        end_process: Callable[[int], object] = os._exit,
    ) -> None:
        """`config`: a ChunkPolicy as plain data; `end_process`: ends this process at once with an exit code."""
        listen_at_node()
        self.config = ChunkPolicy.model_validate(config)
        self._started = time.time()
        self._once = Once[ChunkAnswer](_is_result, self.config.repeat_window_s)
        self._calls = Calls()
        self._backlog = Backlog(self.config.max_batch)
        self._measure()
        engine = GuardedChunkEngine(start_engine(self.config), self.config.replicas.no_progress_s)
        self.engine: ChunkEngine = engine
        self._hosted = HostedEngine(engine, self.config, self._version_gauge.set, end_process)
        await self._hosted.start()

    def _measure(self) -> None:
        tags = {"policy": self.config.name}
        self._requests = metrics.Counter("rayward_serve_chunks", "Requests for a chunk of actions", ("policy",))
        self._failures = metrics.Counter("rayward_serve_chunk_failures", "Failed ones by kind", ("policy", "kind"))
        self._version_gauge = metrics.Gauge("rayward_serve_weight_version", "Weight version", ("policy",))
        for metric in (self._requests, self._failures, self._version_gauge):
            metric.set_default_tags(tags)

    async def act(self, request: ChunkRequest) -> ChunkAnswer:
        """Answers within the request's deadline, and never raises for what a request asks."""
        self._requests.inc(1)
        answer = await self._calls.answer(request.request_id, self._in_time(request))
        if isinstance(answer, GenerateFailure):
            self._failures.inc(1, {"kind": answer.kind})
        return answer

    async def _in_time(self, request: ChunkRequest) -> ChunkAnswer:
        remaining_s = request.remaining_s(time.time())
        if remaining_s <= 0:
            message = f"the request reached a replica {-remaining_s:.3g} s after its deadline (or their clocks differ)"
            return GenerateFailure(request.request_id, "deadline_exceeded", message)
        request = replace(request, deadline_s=remaining_s)
        try:
            async with asyncio.timeout(remaining_s):
                return await self._shared(request)
        except TimeoutError:
            message = f"no answer within the {remaining_s:.3g} s that were left to the request"
            return GenerateFailure(request.request_id, "deadline_exceeded", message)

    async def _shared(self, request: ChunkRequest) -> ChunkAnswer:
        if not request.request_id:
            return await self._answer(request)
        return await self._once.answer(fingerprint(request), lambda: self._answer(request))

    async def _answer(self, request: ChunkRequest) -> ChunkAnswer:
        if request.min_weight_version > self.engine.version:
            try:
                await self.ensure_version(request.min_weight_version, request.deadline_s)
            except PolicyError as error:
                return failure(request.request_id, error)
        try:
            with self._backlog.place(request.remaining_s(time.time())):
                return await self.engine.act(request)
        except PolicyError as error:
            return failure(request.request_id, error)

    async def abandon(self, request_ids: Sequence[str]) -> None:
        """A caller of each of these requests left: its call ends, and does not join a pass. Unknown ids are allowed;
        the client may ask again under the same id."""
        self._calls.abandon(request_ids)

    async def ensure_version(self, version: int, deadline_s: float = 60.0) -> int:
        """Returns the engine's version once it is at least `version`. Raises PolicyError; see `WeightUpdates.reach`."""
        return await self._hosted.ensure_version(version, deadline_s)

    async def status(self) -> dict[str, Any]:
        description, device = self.engine.description, self.engine.device()
        return {
            "policy": self.config.name,
            "model": description.name,
            "ready": True,
            "weight_version": self.engine.version,
            "unfinished_requests": self.engine.unfinished(),
            "pid": os.getpid(),
            "started": self._started,
            "device": device.name,
            "gpu_memory_used_gb": device.memory_used_gb,
            "gpu_memory_total_gb": device.memory_total_gb,
        }

    async def shape(self) -> ChunkShape:
        """What the policy takes and gives."""
        return self.engine.description.shape

    async def served(self) -> ChunkPolicy:
        """How this policy is served."""
        return self.config

    async def check_health(self) -> None:
        """Serve replaces the replica when this raises."""
        await self.engine.health()

    async def __del__(self) -> None:
        """Serve calls this once the replica's requests are drained."""
        if hasattr(self, "_hosted"):
            await self._hosted.close()


def _is_result(answer: ChunkAnswer) -> bool:
    return isinstance(answer, ChunkResult)
