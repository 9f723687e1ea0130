"""`Generate` over Ray Serve: what a rollout worker calls. Requests that arrive together share one streaming call."""

from __future__ import annotations

import zlib
from typing import Any

from deployments.client.batcher import Batcher
from deployments.errors import PolicyError
from deployments.protocol.generate import GenerateFailure, GenerateRequest, GenerateResult


class ServeGenerate:
    """Awaitable `generate(request) -> result` through a Serve handle.

    Requests are put into buckets by session: all of a bucket go to one replica, whose prefix cache knows them. Those of
    a bucket that arrive within `window_s` travel in one call; answers stream back as they get ready, so no short
    answer waits for a long one. Raises PolicyError; every wait is bounded by the request's deadline.
    """

    def __init__(self, handle: Any, buckets: int = 1, window_s: float = 0.002, max_batch: int = 96) -> None:
        calls = [
            handle.options(method_name="generate_stream", stream=True, session_id=f"bucket-{k}") for k in range(buckets)
        ]
        self._batchers: list[Batcher[GenerateRequest, GenerateResult | GenerateFailure]] = [
            Batcher(call.remote, window_s, max_batch) for call in calls
        ]

    async def __call__(self, request: GenerateRequest) -> GenerateResult:
        bucket = zlib.crc32((request.session_id or request.request_id).encode()) % len(self._batchers)
        try:
            answer = await self._batchers[bucket](request, request.deadline_s)
        except PolicyError as error:
            raise PolicyError(error.kind, error.message, request.request_id) from error
        except Exception as error:  # Serve's and Ray's many ways to lose a replica: all mean «try again»
            first_line = str(error).partition("\n")[0][:200]
            lost = f"the call to the replica failed: {type(error).__name__}: {first_line}"
            raise PolicyError("unavailable", lost, request.request_id) from error
        if isinstance(answer, GenerateFailure):
            raise PolicyError(answer.kind, answer.message, answer.request_id)
        return answer
