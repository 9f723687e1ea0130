"""The one object that all transports of an ingress ask: `Acting` around the policies' Serve handles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from configs.policies import ChunkPolicy
from configs.serving import ServeConfig
from deployments.acting.act import Acting
from deployments.client.chat import ServeChat
from deployments.client.chunks import ServeChunks
from deployments.protocol.act import Chat, Chunks


def acting_of(config: ServeConfig, handles: Mapping[str, Any]) -> Acting:
    """`handles`: the Serve handle of each policy, by its name."""
    chats: dict[str, Chat] = {}
    chunks: dict[str, Chunks] = {}
    for policy in config.policies:
        handle = handles[policy.name]
        if isinstance(policy, ChunkPolicy):
            chunks[policy.name] = ServeChunks(handle)
        else:
            chats[policy.name] = ServeChat(handle)
    return Acting(config, chats=chats, chunks=chunks)
