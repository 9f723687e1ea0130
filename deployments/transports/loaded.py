"""What is known of policies that are loaded while the application runs, and what is needed of Serve for it. No Ray."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from configs.policies import AnyPolicy

State = Literal["loading", "ready", "failed", "unloading"]


@dataclass(frozen=True, slots=True)
class Notice:
    """What an ingress process has begun or given up, told to all of them. `policy`: as it was asked for."""

    name: str
    state: Literal["loading", "failed", "unloading"]
    policy: AnyPolicy | None = None
    message: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """What Serve says of the application of one loaded policy."""

    state: State
    message: str = ""


class Serving(Protocol):
    """What is needed of Serve. Every wait has a deadline of its own; all raise PolicyError("unavailable")."""

    async def applications(self) -> Mapping[str, Found]:
        """Of all loaded policies, by the policy's name."""

    async def load(self, policy: AnyPolicy) -> None:
        """Begins to start the policy's replicas. Raises UserError for one that cannot be served."""

    async def delete(self, name: str) -> None:
        """Ends the replicas once their requests are answered; does not wait for it. An unknown name is no error."""

    async def served(self, name: str) -> AnyPolicy | None:
        """How a replica of the policy says that it is served; None where none answers now."""

    def handle(self, name: str) -> Any:
        """A Serve handle of the policy's replicas."""

    async def tell(self, notice: Notice) -> None:
        """Has every ingress process `heard` this."""

    async def drain(self, name: str, limit_s: float) -> None:
        """Returns once no ingress process has a request to the policy under way, after `limit_s` at the latest."""


@dataclass(slots=True)
class Entry:
    """`policy`: None where another process was asked for it, and this one not told. `in_serve`: Serve has an
    application of it. `until_s`: until when loading or unloading may take."""

    state: State
    policy: AnyPolicy | None = None
    message: str = ""
    in_serve: bool = False
    until_s: float = float("inf")
