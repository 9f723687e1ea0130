"""What `/health`, `/` and `/metrics` say: a superset of what the clients of several systems look for."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from configs.policies import AnyPolicy, ProviderPolicy
from configs.serving import ServeConfig
from deployments.acting.counts import Counts
from deployments.transports.http.answers import awaitable

STATUS_LIMIT_S = 5.0  # a replica answers at once, whatever its engine does

Status = dict[str, Any]  # of one policy, as its replica or `_silent` says


async def statuses(handles: Mapping[str, Any]) -> dict[str, Status]:
    """What one replica of each policy says of itself; all policies are asked at the same time."""
    return dict(zip(handles, await asyncio.gather(*map(_status, handles, handles.values())), strict=True))


async def _status(name: str, handle: Any) -> Status:
    try:
        found: Status = await asyncio.wait_for(awaitable(handle.status.remote()), timeout=STATUS_LIMIT_S)
    except (TimeoutError, RayError, RayServeException) as error:
        return {"policy": name, "ready": False, "message": type(error).__name__}
    return found


def health(config: ServeConfig, found: Mapping[str, Status], now_unix_s: float) -> dict[str, Any]:
    """The body of `/health`. "healthy" means that every policy answers."""
    ready = all(status.get("ready", True) for status in found.values())
    devices = sorted({str(status["device"]) for status in found.values() if status.get("device")})
    return {
        "status": "healthy" if ready else "unhealthy",
        "ready": ready,
        "model_loaded": ready,
        "model": ", ".join(found),
        "device": ", ".join(devices) or "unknown",
        "gpu_available": any(device.startswith(("cuda", "gpu")) for device in devices),
        "service": "rayward",
        "version": _version(),
        "timestamp": now_unix_s,
        "timeout": max(policy.request_deadline_s for policy in config.policies),
        "concurrency_limit": sum(map(_concurrency, config.policies)),
        "rate_limits_configured": any(
            isinstance(policy, ProviderPolicy) and policy.rate_limits is not None for policy in config.policies
        ),
        "policies": dict(found),
    }


def _concurrency(policy: AnyPolicy) -> int:
    """Requests that the replicas of a policy work on at the same time, at most."""
    each = policy.concurrency if isinstance(policy, ProviderPolicy) else policy.replicas.max_ongoing_requests
    return each * policy.replicas.max_replicas


def root(config: ServeConfig, endpoints: list[str]) -> dict[str, Any]:
    """The body of `GET /`."""
    names = [policy.name for policy in config.policies]
    return {
        "name": "rayward",
        "model": ", ".join(names),
        "status": "running",
        "version": _version(),
        "policies": names,
        "endpoints": endpoints,
    }


def acting_metrics(counts: Counts) -> str:
    """What happened to the answers of policies that act, as Prometheus reads it."""
    lines = []
    for name, values in counts.snapshot().items():
        lines.append(f"# TYPE rayward_acting_{name}_total counter")
        lines += [
            f'rayward_acting_{name}_total{{policy="{policy}",kind="{kind}"}} {count}'
            for (policy, kind), count in sorted(values.items())
        ]
    return "".join(f"{line}\n" for line in lines)


def _version() -> str:
    try:
        return version("rayward")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "unknown"
