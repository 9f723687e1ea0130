"""How an ingress process asks the replicas of each policy over HTTP: a handle, its streams, its batches."""

from __future__ import annotations

from typing import Any

from configs.policies import AnyPolicy, PolicyConfig
from deployments.client.batcher import Batcher
from deployments.client.handle import abandon_on
from deployments.protocol.completion import CompletionPart, CompletionRequest
from deployments.protocol.generate import GeneratePiece


class PolicyHandles:
    """By the policy's name: its Serve handle, the same for streaming calls, and what batches its plain requests
    (only of policies that complete text)."""

    def __init__(self) -> None:
        self.handles: dict[str, Any] = {}
        self.streams: dict[str, Any] = {}
        self.batchers: dict[str, Batcher[CompletionRequest, CompletionPart]] = {}

    def connect(self, policy: AnyPolicy, handle: Any) -> None:
        name = policy.name
        self.handles[name] = handle
        self.streams[name] = handle.options(stream=True)
        if isinstance(policy, PolicyConfig):
            self.batchers[name] = Batcher(
                self.streams[name].complete.remote,
                window_s=0.001,
                max_batch=16,
                size_of=lambda request: request.size_bytes,
                abandon=abandon_on(handle),
                is_last=lambda part: not isinstance(part, GeneratePiece),
            )

    def disconnect(self, name: str) -> None:
        """Calls under way are answered. A name that is not connected is no error."""
        for known in (self.handles, self.streams, self.batchers):
            known.pop(name, None)
