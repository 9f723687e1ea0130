"""Loaded policies as Serve applications of their own, which have no route: only an ingress asks them, by handle."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import ray
from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from configs.base import ConfigError
from configs.policies import AnyPolicy
from deployments.errors import PolicyError
from deployments.transports.loaded import Found, Notice, State

# (policy as plain data, name of its application, where made models are kept) -> why it cannot be served, None once
# Serve has begun to start it: see `deployments.app.load_policy`.
LoadPolicy = Callable[[dict[str, Any], str, str], str | None]
AnswerT = TypeVar("AnswerT")

# To Serve a loaded policy is the ingress of its application. Where that application is built, these let it keep its
# router, which Serve refuses to an ingress behind HAProxy; in its replicas they keep Serve from opening HTTP and gRPC
# servers in each of them, which would know nothing of our keys.
NO_INGRESS = {"RAY_SERVE_ENABLE_HA_PROXY": "0", "RAY_SERVE_ENABLE_DIRECT_INGRESS": "0"}
LIMIT_S = 5.0  # of what Serve's controller, a replica or another ingress answers at once
STATES: dict[str, State] = {
    "NOT_STARTED": "loading",
    "DEPLOYING": "loading",
    "RUNNING": "ready",
    "UNHEALTHY": "ready",  # its replicas are being replaced
    "DEPLOY_FAILED": "failed",
    "DELETING": "unloading",
}
LONGEST_MESSAGE = 2000


def application_of(app: str, policy: str) -> str:
    """The name of a loaded policy's application beside the application `app`; log files are named after it, too.

    >>> application_of("rayward", "arm")
    'rayward+arm'
    """
    return f"{app}+{policy}"


class ServeApplications:
    """What `ManagedPolicies` needs of Serve, in an ingress process of the application `app`."""

    def __init__(self, app: str, ingress: str, load: LoadPolicy, storage_path: str) -> None:
        """`ingress`: the deployment of the ingress processes. `load` runs in a process of its own: it imports what the
        policy needs, which an ingress has no room for."""
        self._app, self._prefix = app, application_of(app, "")
        self._load, self._storage_path = ray.remote(load), storage_path
        self._ingress = serve.get_deployment_handle(ingress, app)
        # Serve's calls block. Threads of their own: those of the event loop decode images.
        self._threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="serve-status")

    async def applications(self) -> Mapping[str, Found]:
        status = await _answered(self._blocking(serve.status))
        if self._app not in status.applications:  # Serve says so, too, while it has no controller
            raise PolicyError("unavailable", "Serve does not know its applications now: try again")
        return {
            name.removeprefix(self._prefix): Found(STATES[found.status.value], _reason(found))
            for name, found in status.applications.items()
            if name.startswith(self._prefix)
        }

    async def load(self, policy: AnyPolicy) -> None:
        name = self._prefix + policy.name
        plain = policy.model_dump(mode="json")
        task = self._load.options(num_cpus=0, max_retries=0, runtime_env={"env_vars": NO_INGRESS})
        call = task.remote(plain, name, self._storage_path)
        problem = await _answered(call, policy.replicas.start_deadline_s)
        if problem is not None:
            raise ConfigError(problem)

    async def delete(self, name: str) -> None:
        await _answered(self._blocking(lambda: serve.delete(self._prefix + name, _blocking=False)))

    async def served(self, name: str) -> AnyPolicy | None:
        try:
            found: AnyPolicy = await _answered(_awaited(self.handle(name).served.remote()), LIMIT_S / 2)
        except PolicyError:
            return None
        return found

    def handle(self, name: str) -> Any:
        return serve.get_deployment_handle(name, self._prefix + name)

    async def tell(self, notice: Notice) -> None:
        await self._all_ingresses(LIMIT_S, "policy_changes", notice)

    async def drain(self, name: str, limit_s: float) -> None:
        await self._all_ingresses(limit_s + LIMIT_S, "drain_policy", name, limit_s)

    async def _all_ingresses(self, limit_s: float, method: str, *arguments: object) -> None:
        told = self._ingress.broadcast(method, *arguments)
        await _answered(told.results_async(return_exceptions=True), limit_s)

    def _blocking(self, call: Callable[[], AnswerT]) -> Awaitable[AnswerT]:
        return asyncio.get_running_loop().run_in_executor(self._threads, call)


async def _awaited(response: Any) -> Any:
    return await response


async def _answered(answer: Awaitable[AnswerT], limit_s: float = LIMIT_S) -> AnswerT:
    """Raises PolicyError("unavailable") where Serve fails, or is not done within `limit_s`."""
    try:
        async with asyncio.timeout(limit_s):
            return await answer
    except (TimeoutError, RayError, RayServeException) as error:
        late = f"Serve was not done within {limit_s:g} s"
        raise PolicyError("unavailable", late if isinstance(error, TimeoutError) else _last_line(str(error))) from error


def _reason(status: Any) -> str:
    """What Serve says of each deployment."""
    messages = [_last_line(found.message) for found in status.deployments.values()]
    return "; ".join(filter(None, messages))


def _last_line(message: str) -> str:
    """Of a traceback the exception."""
    return next(reversed(message.strip().splitlines()), "")[:LONGEST_MESSAGE]
