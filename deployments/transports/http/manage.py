"""`GET /policies`, `PUT` and `DELETE /policies/{name}`: policies are loaded and unloaded while the application runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import Request
from fastapi.responses import Response

from configs.base import ConfigError
from configs.policies import AnyPolicy
from configs.serving import LoadedPolicy
from deployments.errors import PolicyError
from deployments.transports.http.answers import failure_body, json_answer, request_id_of
from deployments.transports.http.asked import Json, parsed
from deployments.transports.http.health import Status
from deployments.transports.http.requests import read_body
from deployments.transports.loaded import Entry
from deployments.transports.managed import ManagedPolicies
from deployments.transports.policies import ServedPolicies

LONGEST_BODY = 256 * 1024  # bytes
MOST_VALUES = 10_000


def switched_on(managed: ManagedPolicies | None) -> ManagedPolicies:
    """Raises PolicyError where the configuration does not let callers load policies."""
    if managed is None:
        raise PolicyError("not_found", "policies cannot be loaded or unloaded here: set http.manage_policies to true")
    return managed


def policies(served: ServedPolicies, managed: ManagedPolicies | None, found: Mapping[str, Status]) -> Response:
    """What is served, is being loaded or unloaded, or could not be loaded. `found`: what replicas say of themselves."""
    shown = [
        {
            "name": policy.name,
            "kind": policy.kind,
            "state": "ready" if found.get(policy.name, {}).get("ready", True) else "unhealthy",
            "weight_version": found.get(policy.name, {}).get("weight_version"),
            "from": "file" if served.is_of_file(policy.name) else "loaded",
        }
        for policy in served.config.policies
    ]
    names = {policy.name for policy in served.config.policies}
    entries = managed.entries() if managed is not None else {}
    shown += [{**described(name, entry), "from": "loaded"} for name, entry in entries.items() if name not in names]
    return json_answer({"policies": shown})


async def put_policy(managed: ManagedPolicies, name: str, request: Request) -> Response:
    """200 where the policy is served already with this configuration, 202 with its state where it is being loaded,
    422 for a configuration that is none. Raises PolicyError."""
    body = await parsed(await read_body(request, LONGEST_BODY), MOST_VALUES)
    try:
        policy = policy_of(name, body)
    except ConfigError as error:
        request_id = request_id_of(request)
        return json_answer(failure_body(PolicyError("invalid_request", str(error)), request_id), 422)
    entry = await managed.put(policy)
    return json_answer(described(name, entry), 200 if entry.state == "ready" else 202)


async def delete_policy(managed: ManagedPolicies, name: str) -> Response:
    """202: no new request is taken, and the policy goes when those under way have ended. Raises PolicyError."""
    return json_answer(described(name, await managed.delete(name)), 202)


def policy_of(name: str, body: Json) -> AnyPolicy:
    """The policy that a body configures, which need not repeat its name. Raises ConfigError that names the field."""
    if body.setdefault("name", name) != name:
        raise ConfigError(f"policy.name: the path says {name!r}, the body {str(body['name'])[:80]!r}")
    return LoadedPolicy.parse({"policy": body}, source="the body").policy


def described(name: str, entry: Entry) -> dict[str, Any]:
    kind = None if entry.policy is None else entry.policy.kind
    told = {"name": name, "kind": kind, "state": entry.state}
    return {**told, "message": entry.message} if entry.message else told
