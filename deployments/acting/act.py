"""One decision of a policy that acts, the same for every transport: session, prompt, model, parser, safety."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from configs.serving import ServeConfig
from deployments.protocol.act import ActRequest, ActResult, Chat, Chunks, PolicyMetadata
from deployments.protocol.game import PlayRequest, PlayResult


class Acting:
    """All that a transport calls. One object per ingress process; sessions are its own.

    `policy`: a policy's name; None or an unknown one: the only policy that can answer, if there is exactly one. Every
    method raises PolicyError.
    """

    def __init__(
        self,
        config: ServeConfig,
        chats: Mapping[str, Chat],
        chunks: Mapping[str, Chunks],
        clock: Callable[[], float] = time.time,
    ) -> None: ...

    async def act(self, policy: str | None, request: ActRequest) -> ActResult:
        """Actions of a robot: [1, 7] of an arm behind a vision-language policy, [horizon, D] of a chunk policy."""
        raise NotImplementedError

    async def play(self, policy: str | None, request: PlayRequest) -> PlayResult:
        """The action of a MineRL player."""
        raise NotImplementedError

    async def reset(self, policy: str | None, session_id: str) -> None:
        """Forgets a session; one that is not known is no error."""
        raise NotImplementedError

    def metadata(self, policy: str | None) -> PolicyMetadata:
        """What is known of a policy now; the shape of a chunk policy only after `described` or its first answer."""
        raise NotImplementedError

    async def described(self, policy: str | None, deadline_unix_s: float) -> PolicyMetadata:
        """As `metadata`, but asks a chunk policy for its shape first if it is not known yet."""
        raise NotImplementedError
