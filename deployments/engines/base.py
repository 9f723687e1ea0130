"""What a replica needs of an inference engine. A replica programs against this, not against vLLM."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from deployments.protocol.generate import GenerateFailure, GenerateRequest, GenerateResult


class Engine(Protocol):
    """What a replica needs of an inference engine; vLLM's is `vllm_engine.VllmEngine`."""

    @property
    def version(self) -> int: ...

    async def generate(self, requests: Sequence[GenerateRequest]) -> list[GenerateResult | GenerateFailure]: ...

    async def load_weights(self, folder: str, version: int) -> None: ...

    async def close(self) -> None: ...
