"""`Generate` over Ray Serve: what a rollout worker calls. Requests that arrive together share one streaming call."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from deployments.client.batcher import Batcher
from deployments.errors import PolicyError, grpc_failure
from deployments.protocol.generate import GenerateFailure, GenerateRequest, GenerateResult


class ServeGenerate:
    """Awaitable `generate(request) -> result` through a Serve handle.

    Requests are put into buckets by session: all of a bucket go to one replica, whose prefix cache knows them. Those of
    a bucket that arrive within `window_s` travel in one call; answers stream back as they get ready, so no short
    answer waits for a long one. Raises PolicyError; every wait is bounded by the request's deadline, which is sent as
    wall time (`clock`): a replica refuses what waited too long on the way. A cancelled call is aborted in the engine.
    """

    def __init__(
        self,
        handle: Any,
        buckets: int = 1,
        window_s: float = 0.002,
        max_batch: int = 96,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        calls = [
            handle.options(method_name="generate_stream", stream=True, session_id=f"bucket-{k}") for k in range(buckets)
        ]
        self._batchers: list[Batcher[GenerateRequest, GenerateResult | GenerateFailure]] = [
            Batcher(call.remote, window_s, max_batch, size_of=_size_bytes, abandon=abandon_on(handle)) for call in calls
        ]

    async def __call__(self, request: GenerateRequest) -> GenerateResult:
        bucket = zlib.crc32((request.session_id or request.request_id).encode()) % len(self._batchers)
        if request.deadline_unix_s is None:
            request = replace(request, deadline_unix_s=self._clock() + request.deadline_s)
        try:
            answer = await self._batchers[bucket](request, request.deadline_s)
        except Exception as error:
            raise call_failure(error, request.request_id) from error
        if isinstance(answer, GenerateFailure):
            raise failure_of(answer)
        return answer


def call_failure(error: Exception, request_id: str) -> PolicyError:
    """What a failed call through a Serve handle means. Serve and Ray have many ways to lose a replica: all mean «try
    again»."""
    if isinstance(error, PolicyError):
        return error.of_request(request_id)
    too_large = grpc_failure(error)
    if too_large is not None and too_large.kind == "too_large":
        return PolicyError(too_large.kind, too_large.message, request_id)
    if type(error).__name__ == "BackPressureError":  # without importing ray
        return PolicyError("overloaded", "too many requests wait for a replica: try again later", request_id)
    first_line = str(error).partition("\n")[0][:200]
    return PolicyError(
        "unavailable", f"the call to the replica failed: {type(error).__name__}: {first_line}", request_id
    )


def failure_of(answer: GenerateFailure) -> PolicyError:
    """The exception for a request that a replica answered with a failure."""
    return PolicyError(answer.kind, answer.message, answer.request_id, answer.retry_after_s, answer.rate_limit)


def abandon_on(handle: Any) -> Callable[[list[Any]], Any]:
    """What a Batcher calls for items whose callers left: tells all replicas, of which one works on the request.

    `handle`: a Serve handle of a deployment with a method `abandon(request_ids)`.
    """

    async def abandon(items: list[Any]) -> None:
        await handle.broadcast("abandon", [item.request_id for item in items]).results_async(return_exceptions=True)

    return abandon


def _size_bytes(request: GenerateRequest) -> int:
    return 5 * len(request.token_ids) + sum(image.nbytes for image in request.images)  # integers are 5 bytes, pickled
