"""Which engine a chunk policy's folder needs: decided in the replica, whose environment has what it imports."""

from __future__ import annotations

from pathlib import Path

from configs.policies import ChunkPolicy
from deployments.chunks.lerobot import is_lerobot
from deployments.engines.base import ChunkEngine


def chunk_engine(config: ChunkPolicy) -> ChunkEngine:
    """An engine that is not loaded yet: LeRobot's for a folder that LeRobot has written, else our own."""
    if is_lerobot(Path(config.checkpoint)):
        from deployments.engines.lerobot.engine import LeRobotEngine

        return LeRobotEngine(config)
    from deployments.engines.chunks.engine import ChunkPolicyEngine

    return ChunkPolicyEngine(config)
