"""The steps in which a learner pushes a weight version into an engine: what `deployments.weights.push` sends to each
replica. No ray, torch or vllm.

>>> [StartPush(version=7, deadline_s=300.0), PushPart(7, {"names": ["w"]}), FinishPush(7)]
[StartPush(version=7, deadline_s=300.0), PushPart(version=7, info={'names': ['w']}), FinishPush(version=7)]
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

# vLLM's own description of a transfer, made and read by its weight-transfer backends: rayward only carries it.
TransferInfo = dict[str, Any]


@dataclass(frozen=True, slots=True)
class OpenGroup:
    """Once per transfer group, before the first version: the engine joins the learner's group (NCCL waits for all)."""

    info: TransferInfo

    def of_replica(self, rank: int, gpus: int) -> OpenGroup:
        """The same for replica number `rank`, each of which has `gpus` workers: its own range of NCCL ranks."""
        if "rank_offset" not in self.info:
            return self
        return replace(self, info=self.info | {"rank_offset": self.info["rank_offset"] + rank * gpus})


@dataclass(frozen=True, slots=True)
class StartPush:
    """Generation pauses. An engine that has not seen `FinishPush` or `AbortPush` after `deadline_s` seconds aborts the
    push itself."""

    version: int
    deadline_s: float

    def __post_init__(self) -> None:
        if self.version < 0 or not self.deadline_s > 0:
            raise ValueError(f"a push needs a version >= 0 and a deadline_s > 0, got {self}")


@dataclass(frozen=True, slots=True)
class PushPart:
    """The engine receives a part of the weights; from here on it holds parts of two versions until `FinishPush`."""

    version: int
    info: TransferInfo | list[TransferInfo]


@dataclass(frozen=True, slots=True)
class FinishPush:
    """All parts are there: the engine holds `version`, and generation resumes."""

    version: int


@dataclass(frozen=True, slots=True)
class AbortPush:
    """The learner gives up. An engine that received no part keeps its old weights; any other one is broken."""

    version: int


PushStep = OpenGroup | StartPush | PushPart | FinishPush | AbortPush
