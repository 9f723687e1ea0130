"""What a streaming transport is given: who acts, who may ask, and which policies are served."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from configs.policies import BasePolicy
from configs.serving import ServeConfig
from deployments.acting.observations import ImageLimits
from deployments.protocol.act import ActRequest, ActResult, PolicyMetadata
from deployments.protocol.game import PlayRequest, PlayResult
from deployments.transports.policies import ServedPolicies


class Acts(Protocol):
    """What these transports need of `deployments.acting.act.Acting`. All raise PolicyError."""

    async def act(self, policy: str | None, request: ActRequest) -> ActResult: ...

    async def play(self, policy: str | None, request: PlayRequest) -> PlayResult: ...

    async def reset(self, policy: str | None, session_id: str) -> None: ...

    async def described(self, policy: str | None, deadline_unix_s: float) -> PolicyMetadata: ...


class Authenticates(Protocol):
    """What the gRPC service needs of `deployments.access.keys.Keys`. WebSockets come through the door of HTTP."""

    async def authenticate(self, presented: str | None) -> str:
        """The name of the key's owner. Raises PolicyError."""


@dataclass(frozen=True, slots=True)
class Front:
    """`acting`, `keys` and `served` as the ingress has them."""

    acting: Acts
    keys: Authenticates
    served: ServedPolicies

    @property
    def config(self) -> ServeConfig:
        """As it is now."""
        return self.served.config

    async def policy(self, name: str | None, fits: Callable[[BasePolicy], bool]) -> BasePolicy:
        """The policy that answers a connection. Raises PolicyError("not_found"); see `ServedPolicies.chosen`."""
        return await self.served.chosen(name, fits)

    def limits(self, policy: BasePolicy) -> ImageLimits:
        """Bounds of one image, of the policy and of the application."""
        limits = ImageLimits.of(policy.act)
        return ImageLimits(limits.max_pixels, min(limits.max_bytes, self.config.max_body_bytes))
