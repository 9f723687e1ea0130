"""What Serve says of its applications becomes what is told of loaded policies; a Serve that fails is `unavailable`."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from ray.serve.exceptions import RayServeException
from ray.serve.schema import ApplicationStatus

from configs.base import ConfigError
from configs.policies import ChunkPolicy
from deployments.errors import PolicyError
from deployments.transports import serve_applications
from deployments.transports.loaded import Found, Notice
from deployments.transports.serve_applications import STATES, ServeApplications

POLICY = ChunkPolicy(name="arm", checkpoint="made-up")


class Response:
    """Of a broadcast, or of a task of Ray that answers `answer`."""

    def __init__(self, answer: Any = None) -> None:
        self.answer = answer

    async def results_async(self, return_exceptions: bool) -> Any:
        return self.answer

    def __await__(self) -> Any:
        async def answered() -> Any:
            if isinstance(self.answer, Exception):
                raise self.answer
            return self.answer

        return answered().__await__()


class Task:
    """`load` as a task of Ray."""

    environment: Any = None

    def __init__(self, load: Any) -> None:
        self.load = load

    def options(self, runtime_env: Any, **_: Any) -> Task:
        Task.environment = runtime_env["env_vars"]
        return self

    def remote(self, *arguments: Any) -> Response:
        return Response(self.load(*arguments))


class Handle:
    def __init__(self) -> None:
        self.broadcasts: list[tuple[Any, ...]] = []
        self.silent = asyncio.Event()
        self.served = SimpleNamespace(remote=self._served)

    def broadcast(self, *arguments: Any) -> Response:
        self.broadcasts.append(arguments)
        return Response([])

    async def _served(self) -> None:
        await self.silent.wait()


def application(status: ApplicationStatus, *messages: str) -> Any:
    deployments = {str(i): SimpleNamespace(message=message) for i, message in enumerate(messages)}
    return SimpleNamespace(status=status, deployments=deployments)


@pytest.fixture
def handle() -> Handle:
    return Handle()


def serving(monkeypatch: pytest.MonkeyPatch, handle: Handle, load: Any = lambda *_: None) -> ServeApplications:
    monkeypatch.setattr("ray.serve.get_deployment_handle", lambda name, app: handle)
    monkeypatch.setattr("ray.remote", Task)
    return ServeApplications("rayward", "ingress", load, "/storage")


def says(monkeypatch: pytest.MonkeyPatch, **applications: Any) -> None:
    status = SimpleNamespace(applications=applications)
    monkeypatch.setattr("ray.serve.status", lambda: status)


async def test_policies_are_told_from_other_applications_and_a_failure_by_its_last_line(
    monkeypatch: pytest.MonkeyPatch, handle: Handle
) -> None:
    failed = application(ApplicationStatus.DEPLOY_FAILED, "", "it failed:\nTraceback ...\nConfigError: no checkpoint\n")
    running = application(ApplicationStatus.RUNNING)
    says(monkeypatch, **{"rayward": running, "vision": running, "rayward+arm": running, "rayward+broken": failed})
    assert await serving(monkeypatch, handle).applications() == {
        "arm": Found("ready"),
        "broken": Found("failed", "ConfigError: no checkpoint"),
    }


def test_every_state_of_serve_means_something() -> None:
    assert set(STATES) == {status.value for status in ApplicationStatus}


async def test_a_serve_without_its_controller_does_not_mean_that_all_policies_are_gone(
    monkeypatch: pytest.MonkeyPatch, handle: Handle
) -> None:
    says(monkeypatch)
    with pytest.raises(PolicyError, match="unavailable"):
        await serving(monkeypatch, handle).applications()


async def test_a_serve_that_fails_is_unavailable(monkeypatch: pytest.MonkeyPatch, handle: Handle) -> None:
    def status() -> None:
        raise RayServeException("no controller")

    monkeypatch.setattr("ray.serve.status", status)
    with pytest.raises(PolicyError, match="unavailable: no controller"):
        await serving(monkeypatch, handle).applications()


async def test_a_load_is_begun_under_a_name_of_its_own_and_says_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch, handle: Handle
) -> None:
    begun: list[Any] = []

    def load(*arguments: Any) -> str | None:
        begun.append(arguments)
        return None if len(begun) == 1 else "model folder does not exist"

    serves = serving(monkeypatch, handle, load)
    await serves.load(POLICY)
    assert Task.environment["RAY_SERVE_ENABLE_HA_PROXY"] == "0", "else Serve refuses its router"
    assert begun == [(POLICY.model_dump(mode="json"), "rayward+arm", "/storage")]
    with pytest.raises(ConfigError, match="model folder does not exist"):
        await serves.load(POLICY)


async def test_every_ingress_is_told_and_asked_for_its_requests_under_way(
    monkeypatch: pytest.MonkeyPatch, handle: Handle
) -> None:
    serves, notice = serving(monkeypatch, handle), Notice("arm", "unloading")
    await serves.tell(notice)
    await serves.drain("arm", 3.0)
    assert handle.broadcasts == [("policy_changes", notice), ("drain_policy", "arm", 3.0)]


async def test_a_replica_that_does_not_answer_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, handle: Handle
) -> None:
    monkeypatch.setattr(serve_applications, "LIMIT_S", 0.002)
    assert await serving(monkeypatch, handle).served("arm") is None
