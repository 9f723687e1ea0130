"""`Generate` over Ray Serve: what a rollout worker calls. Requests that arrive together share one streaming call."""

from __future__ import annotations

import asyncio
import zlib
from typing import Any

from deployments.errors import PolicyError
from deployments.protocol import GenerateFailure, GenerateRequest, GenerateResult


class ServeGenerate:
    """Awaitable `generate(request) -> result` through a Serve handle.

    Requests are put into buckets by session: all of a bucket go to one replica, whose prefix cache knows them. Those of
    a bucket that arrive within `window_s` travel in one call; answers stream back as they get ready, so no short
    answer waits for a long one. Raises PolicyError; every wait is bounded by the request's deadline.
    """

    def __init__(self, handle: Any, buckets: int = 1, window_s: float = 0.002, max_batch: int = 96) -> None:
        self._calls = [
            handle.options(method_name="generate_stream", stream=True, session_id=f"bucket-{k}") for k in range(buckets)
        ]
        self._window_s = window_s
        self._max_batch = max_batch
        self._waiting: list[dict[str, GenerateRequest]] = [{} for _ in range(buckets)]
        self._timers: list[asyncio.TimerHandle | None] = [None] * buckets
        self._futures: dict[str, asyncio.Future[GenerateResult]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def __call__(self, request: GenerateRequest) -> GenerateResult:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[GenerateResult] = loop.create_future()
        self._futures[request.request_id] = future
        bucket = zlib.crc32((request.session_id or request.request_id).encode()) % len(self._calls)
        self._waiting[bucket][request.request_id] = request
        if len(self._waiting[bucket]) >= self._max_batch:
            self._flush(bucket)
        elif self._timers[bucket] is None:
            self._timers[bucket] = loop.call_later(self._window_s, self._flush, bucket)
        try:
            # the replica answers by the deadline; the margin is for the way
            return await asyncio.wait_for(future, request.deadline_s + 5.0)
        except TimeoutError:
            message = f"no answer from a replica within {request.deadline_s:g} s"
            raise PolicyError("deadline_exceeded", message, request.request_id) from None
        finally:
            self._futures.pop(request.request_id, None)
            self._waiting[bucket].pop(request.request_id, None)

    def _flush(self, bucket: int) -> None:
        timer, self._timers[bucket] = self._timers[bucket], None
        if timer is not None:
            timer.cancel()
        batch, self._waiting[bucket] = self._waiting[bucket], {}
        if batch:
            task = asyncio.ensure_future(self._deliver(bucket, list(batch.values())))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _deliver(self, bucket: int, batch: list[GenerateRequest]) -> None:
        try:
            async for answers in self._calls[bucket].remote(batch):
                for answer in answers:
                    self._settle(answer)
            lost = "the replica ended its answer early"
        except Exception as error:  # Serve's and Ray's many ways to lose a replica: all mean «try again»
            lost = f"the call to the replica failed: {type(error).__name__}: {str(error).splitlines()[0][:200]}"
        for request in batch:
            self._settle(GenerateFailure(request.request_id, "unavailable", lost))

    def _settle(self, answer: GenerateResult | GenerateFailure) -> None:
        future = self._futures.get(answer.request_id)
        if future is None or future.done():
            return
        if isinstance(answer, GenerateFailure):
            future.set_exception(PolicyError(answer.kind, answer.message, answer.request_id))
        else:
            future.set_result(answer)
