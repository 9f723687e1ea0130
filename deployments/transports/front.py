"""What a streaming transport is given: who acts, who may ask, and the configuration of whom it asks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from configs.policies import BasePolicy, ChunkPolicy
from configs.serving import ServeConfig
from deployments.acting.observations import ImageLimits
from deployments.errors import PolicyError
from deployments.protocol.act import ActRequest, ActResult, PolicyMetadata
from deployments.protocol.game import PlayRequest, PlayResult


class Acts(Protocol):
    """What these transports need of `deployments.acting.act.Acting`. All raise PolicyError."""

    async def act(self, policy: str | None, request: ActRequest) -> ActResult: ...

    async def play(self, policy: str | None, request: PlayRequest) -> PlayResult: ...

    async def reset(self, policy: str | None, session_id: str) -> None: ...

    def metadata(self, policy: str | None) -> PolicyMetadata: ...

    async def described(self, policy: str | None, deadline_unix_s: float) -> PolicyMetadata: ...


class Authenticates(Protocol):
    """What these transports need of `deployments.access.keys.Keys`."""

    async def authenticate(self, presented: str | None) -> str:
        """The name of the key's owner. Raises PolicyError."""


class Open:
    """Stands for keys where none are configured: everybody may ask."""

    async def authenticate(self, presented: str | None) -> str:
        return ""


@dataclass(frozen=True, slots=True)
class Front:
    """`acting` and `keys` as the ingress has them."""

    acting: Acts
    keys: Authenticates
    config: ServeConfig

    def policy(self, name: str | None, answers: Callable[[BasePolicy], bool]) -> BasePolicy:
        """The policy of that name; else the only one that `answers`, if there is just one. Raises PolicyError."""
        known = self.config.policies
        candidates = [policy for policy in known if policy.name == name] or [
            policy for policy in known if answers(policy)
        ]
        if len(candidates) == 1:
            return candidates[0]
        names = ", ".join(policy.name for policy in known)
        raise PolicyError("not_found", f"{'no policy ' + repr(name) if name else 'no policy named'}; loaded: {names}")

    def limits(self, policy: BasePolicy) -> ImageLimits:
        """Bounds of one image, of the policy and of the transport's message."""
        limits = ImageLimits.of(policy.act)
        return ImageLimits(limits.max_pixels, min(limits.max_bytes, self.config.max_body_bytes))


def acts(policy: BasePolicy) -> bool:
    """Whether a policy moves robots."""
    return isinstance(policy, ChunkPolicy) or policy.act.arm is not None


def plays(policy: BasePolicy) -> bool:
    """Whether a policy plays games."""
    return policy.act.game is not None
