"""The one object that all transports of an ingress ask: `Acting` around the policies' Serve handles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from configs.policies import AnyPolicy, ChunkPolicy
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
        chat, chunk = _asked_through(policy, handles[policy.name])
        if chat is not None:
            chats[policy.name] = chat
        if chunk is not None:
            chunks[policy.name] = chunk
    return Acting(config, chats=chats, chunks=chunks)


def add_policy(acting: Acting, policy: AnyPolicy, handle: Any) -> None:
    """Has a policy asked that was loaded later. Raises ConfigError for one that cannot act as it says."""
    acting.add(policy, *_asked_through(policy, handle))


def _asked_through(policy: AnyPolicy, handle: Any) -> tuple[Chat | None, Chunks | None]:
    if isinstance(policy, ChunkPolicy):
        return None, ServeChunks(handle)
    return ServeChat(handle), None
