"""The one object that all transports of an ingress ask: `Acting` around the policies' Serve handles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from configs.policies import ChunkPolicy
from configs.serving import ServeConfig
from deployments.acting.act import Acting
from deployments.client.chat import ServeChat
from deployments.client.chunks import ServeChunks


def acting_of(config: ServeConfig, handles: Mapping[str, Any]) -> Acting:
    """`handles`: the Serve handle of each policy, by its name."""
    chunked = {policy.name for policy in config.policies if isinstance(policy, ChunkPolicy)}
    return Acting(
        config,
        chats={name: ServeChat(handle) for name, handle in handles.items() if name not in chunked},
        chunks={name: ServeChunks(handle) for name, handle in handles.items() if name in chunked},
    )
