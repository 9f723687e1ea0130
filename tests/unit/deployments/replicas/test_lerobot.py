"""The chunk replica around a LeRobot policy, through acting: as a robot sees it. No Ray is started."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.policies import ChunkPolicy
from configs.serving import ServeConfig
from deployments.acting.act import Acting
from deployments.client.handle import failure_of
from deployments.engines.chunks.choice import chunk_engine
from deployments.errors import PolicyError
from deployments.protocol.act import ActRequest, ChunkRequest, ChunkResult, Observation
from deployments.protocol.generate import GenerateFailure
from deployments.replicas.chunks import ChunkReplica
from tests.unit.deployments.engines.lerobot.cases import PACKAGE, WRIST, lerobot_folder

pytestmark = pytest.mark.filterwarnings("ignore:coroutine 'ChunkReplica.__del__' was never awaited")
FRAME = np.full((4, 6, 3), 255, np.uint8)


class Replicas:
    """`Chunks` around one replica, as a handle would be."""

    def __init__(self, replica: ChunkReplica) -> None:
        self.shape = replica.shape
        self._replica = replica

    async def __call__(self, asked: ChunkRequest) -> ChunkResult:
        answer = await self._replica.act(asked)
        if isinstance(answer, GenerateFailure):
            raise failure_of(answer)
        return answer


def asked(*frames: Any) -> ActRequest:
    seen = Observation(frames, "lift", np.array([4.0, 6.0], np.float32))
    return ActRequest("1", seen, "robot", time.time() + 60)


async def test_a_robot_is_answered_by_a_lerobot_policy_as_by_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(PACKAGE))
    policy = ChunkPolicy(kind="chunks", name="so101", checkpoint=str(lerobot_folder(tmp_path)), device="cpu")
    replica: Any = object.__new__(ChunkReplica)  # as Serve does: its constructor is awaited
    await replica.__init__(policy.model_dump(mode="json"), chunk_engine)
    acting = Acting(ServeConfig.model_construct(policies=[policy]), {}, {"so101": Replicas(replica)})

    result = await acting.act("so101", asked(FRAME, FRAME))
    described = await acting.described("so101", time.time() + 60)
    with pytest.raises(PolicyError, match=f"of its camera {WRIST}") as refused:
        await acting.act("so101", asked(FRAME))
    status = await replica.status()
    await replica.__del__()

    assert result.actions[0] == pytest.approx([160.0, 170.0], abs=1e-3)
    assert (described.horizon, described.action_dim, described.cameras) == (3, 2, 2)
    assert refused.value.kind == "invalid_request"
    assert (status["model"], status["device"], status["weight_version"]) == ("lerobot linear", "cpu", 0)
