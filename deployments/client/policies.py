"""Loads and unloads policies of a running application over HTTP. No ray, torch or vllm."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import httpx

from deployments.client.http import answered
from deployments.client.retrying import retrying
from deployments.errors import PolicyError

PERIOD_S = 1.0


@dataclass(frozen=True, slots=True)
class PolicyState:
    """`state`: loading, ready, failed (`message` says why), unloading, or unhealthy: none of its replicas answers."""

    name: str
    state: str
    kind: str | None = None
    message: str = ""
    weight_version: int | None = None


class PoliciesClient:
    """`http.manage_policies` must be true in the application. Raises PolicyError with the server's kind, "unavailable"
    when it cannot be reached; asking again does no harm, and is done where that may help."""

    def __init__(self, base_url: str, key: str | None = None, timeout_s: float = 30.0, retries: int = 3) -> None:
        """`timeout_s`: of one answer, all its tries together."""
        headers = {"authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.Client(base_url=base_url, headers=headers, timeout=timeout_s)
        self._timeout_s, self._retries = timeout_s, retries

    def policies(self) -> dict[str, PolicyState]:
        """By name: what is served, is being loaded or unloaded, or could not be loaded."""
        return {one["name"]: _state(one) for one in self._call("GET", "/policies")["policies"]}

    def load(self, name: str, configuration: Mapping[str, Any], wait_s: float) -> PolicyState:
        """Returns once the policy answers. Raises PolicyError, also "unavailable" with the reason when it cannot be
        loaded, and "deadline_exceeded" when it is not ready within `wait_s`."""
        state = _state(self._call("PUT", f"/policies/{name}", dict(configuration)))
        ends = time.monotonic() + wait_s
        while state.state != "ready":
            if state.state == "failed":
                raise PolicyError("unavailable", f"the policy {name!r} could not be loaded: {state.message}")
            self._pause(ends, f"the policy {name!r} is {state.state} after {wait_s:g} s")
            state = self.policies().get(name, PolicyState(name, "failed", message="it was unloaded meanwhile"))
        return state

    def unload(self, name: str, wait_s: float) -> None:
        """Returns once the policy is gone: what it was asked before is answered. Raises PolicyError,
        "deadline_exceeded" when that takes more than `wait_s`."""
        self._call("DELETE", f"/policies/{name}")
        ends = time.monotonic() + wait_s
        while name in self.policies():
            self._pause(ends, f"the policy {name!r} is not gone after {wait_s:g} s")

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _pause(self, ends: float, late: str) -> None:
        remaining_s = ends - time.monotonic()
        if remaining_s <= 0:
            raise PolicyError("deadline_exceeded", late)
        time.sleep(min(PERIOD_S, remaining_s))

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        again = retrying(self._retries, self._timeout_s)
        answer: dict[str, Any] = again(answered, self._http, method, path, body, uuid.uuid4().hex)
        return answer


def _state(told: Mapping[str, Any]) -> PolicyState:
    return PolicyState(told["name"], told["state"], told["kind"], told.get("message", ""), told.get("weight_version"))
