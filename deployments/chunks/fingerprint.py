"""Which questions of chunk policies are the same: a digest of all that an answer depends on. numpy and xxhash only."""

from __future__ import annotations

import xxhash

from deployments.protocol.act import ChunkRequest


def fingerprint(request: ChunkRequest) -> str:
    """The request's id with a digest of all that its answer depends on: two robots may both count their requests from
    1, and must not get each other's actions; a client that asks again gets the same answer."""
    digest = xxhash.xxh3_128()
    for array in (request.images, request.image_mask, request.state):
        digest.update(repr(array.shape).encode())
        digest.update(array.tobytes())
    committed = request.committed
    if committed is not None:
        digest.update(f"{committed.delay}/{committed.actions.shape}".encode())
        digest.update(committed.actions.tobytes())
    told = (request.prompt, request.noise_seed, request.statistics, request.min_weight_version)
    digest.update(repr(told).encode())
    return f"{request.request_id}/{digest.hexdigest()}"
