"""What a robot policy takes and gives is asked through its Serve handle."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from deployments.client.chunks import ServeChunks
from deployments.errors import PolicyError
from deployments.protocol.act import ChunkRequest, ChunkResult, ChunkShape

SHAPE = ChunkShape(cameras=1, resolution=(2, 2), state_dim=3, action_dim=2, horizon=4)
CHUNK = ChunkResult("r", np.ones((4, 2), np.float32), 7)


class Handle:
    """A Serve handle of a replica that answers with these, by the method's name."""

    def __init__(self, **answers: Any) -> None:
        self._answers = answers

    def options(self, method_name: str) -> Any:
        async def remote(*_: Any) -> Any:
            answer = self._answers[method_name]
            if isinstance(answer, Exception):
                raise answer
            return answer

        return SimpleNamespace(remote=remote)


async def test_a_chunk_and_the_shape_of_a_policy_come_back() -> None:
    chunks = ServeChunks(Handle(act=CHUNK, shape=SHAPE))
    images, mask = np.zeros((1, 2, 2, 3), np.uint8), np.ones(1, np.bool_)
    assert await chunks(ChunkRequest("r", images, mask, np.zeros(3, np.float32), "reach")) is CHUNK
    assert await chunks.shape() == SHAPE


async def test_a_replica_that_is_gone_says_so() -> None:
    with pytest.raises(PolicyError, match="unavailable: the call to the replica failed: ConnectionError: gone"):
        await ServeChunks(Handle(shape=ConnectionError("gone"))).shape()
