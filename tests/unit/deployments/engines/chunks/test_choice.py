"""Which engine answers for a folder."""

from __future__ import annotations

from pathlib import Path

from configs.policies import ChunkPolicy
from deployments.chunks.checkpoint import tiny_checkpoint
from deployments.engines.chunks.choice import chunk_engine
from deployments.engines.chunks.engine import ChunkPolicyEngine
from deployments.engines.lerobot.engine import LeRobotEngine
from tests.unit.deployments.engines.lerobot.cases import lerobot_folder


def engine_of(folder: Path) -> object:
    return chunk_engine(ChunkPolicy(kind="chunks", checkpoint=str(folder)))


async def test_a_folder_is_answered_by_the_engine_of_whoever_wrote_it(tmp_path: Path) -> None:
    assert isinstance(engine_of(lerobot_folder(tmp_path / "theirs")), LeRobotEngine)
    assert isinstance(engine_of(tiny_checkpoint(tmp_path / "ours")), ChunkPolicyEngine)
    assert isinstance(engine_of(tmp_path / "nothing"), ChunkPolicyEngine), "which says what is missing"
