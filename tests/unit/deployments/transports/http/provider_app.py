"""The application around a model behind an API, from the door to the provider over real HTTP; only Ray is left out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from configs.providers import ModelLimits
from deployments.access.keys import new_key
from deployments.access.limiter import Limiter
from deployments.access.provider_limits import ProviderLimits
from deployments.replicas.provider import ProviderReplica
from deployments.transports.http import ingress
from tests.unit.deployments.engines.provider.openai_server import OpenAIServer

SECRET = "provider-key-0123456789"
ROBOT = new_key("robot-1")


class Call:
    """A method with `.remote()`, as of an actor or of a Serve handle."""

    def __init__(self, method: Any) -> None:
        self.remote = lambda *arguments: self._begun(method(*arguments))

    def _begun(self, result: Any) -> Any:
        return asyncio.shield(asyncio.ensure_future(result)) if asyncio.iscoroutine(result) else result


class Stream:
    """What a streaming call through a Serve handle gives."""

    def __init__(self, items: Any) -> None:
        self._items = items

    def __aiter__(self) -> Any:
        return self._items

    def cancel(self) -> None:
        """Serve ends the generator in the replica; here that is left to the end of the test."""


class Handle:
    """A Serve handle to two replicas, which answer by turns."""

    def __init__(self, replicas: list[ProviderReplica]) -> None:
        self._replicas = replicas
        self.status = Call(replicas[0].status)
        self.openai = Call(lambda call: Stream(self._next().openai(call)))

    def options(self, **_: Any) -> Handle:
        return self

    def remote(self, requests: Any) -> Any:
        return self._next().chat(requests)

    def _next(self) -> ProviderReplica:
        self._replicas.reverse()
        return self._replicas[0]


@asynccontextmanager
async def provider_app(
    provider: OpenAIServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an application with one key, two replicas, and three calls per minute."""
    limits = folder / "rate_limits.yaml"
    limits.write_text("openai: {models: {gpt-4o: {requests_per_minute: 3}}}")
    policy = {
        "name": "gpt", "kind": "provider", "model": "openai/gpt-4o", "api_base": provider.address, "retries": 0,
        "rate_limits": str(limits), "act": {"arm": {}},
    }  # fmt: skip
    limiter = Limiter()
    actor = SimpleNamespace(**{name: Call(getattr(limiter, name)) for name in ("acquire", "settle", "cancel", "close")})

    def connect(model: str, limits: ModelLimits) -> ProviderLimits:
        return ProviderLimits(actor, model, limits)

    replicas: list[Any] = [object.__new__(ProviderReplica) for _ in range(2)]
    for replica in replicas:
        await replica.__init__(policy, environment={"OPENAI_API_KEY": SECRET}, connect_limits=connect)
    context = SimpleNamespace(app_name="rayward", servable_object=None)
    monkeypatch.setattr("ray.serve.get_replica_context", lambda: context)
    monkeypatch.setattr("ray.serve.get_deployment_handle", lambda name, app: Handle(replicas))
    monkeypatch.setenv("KEYS", ROBOT.line)
    written: Any = next(c for c in ingress.Ingress.__mro__ if c.__name__ == "Ingress" and "_policy" in vars(c))
    context.servable_object = object.__new__(written)
    config = {"policies": [policy], "access": {"keys_variable": "KEYS"}}
    written.__init__(context.servable_object, config)
    transport = httpx.ASGITransport(app=ingress.api)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as opened:
        yield opened
