"""Who an ingress refuses before it reads a body."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest
from fastapi import Request

from configs.serving import ServeConfig
from deployments.errors import PolicyError
from deployments.replicas.backlog import Backlog
from deployments.transports.http import places
from deployments.transports.http.asked import acts, speaks

TEXT = {"name": "text", "model": "m", "engine": {"max_num_seqs": 1}}
ROBOT = {"name": "robot", "kind": "chunks", "checkpoint": "c", "max_batch": 1, "request_deadline_s": 20.0}


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.seats: list[int] = []
        monkeypatch.setattr(places, "Backlog", self._backlog)

    def _backlog(self, seats: int) -> Backlog:
        self.seats.append(seats)
        return Backlog(seats, lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def request(name: str | None = None, timeout_s: str | None = None) -> Request:
    headers = [] if timeout_s is None else [(b"x-timeout-s", timeout_s.encode())]
    path = {} if name is None else {"name": name}
    return Request({"type": "http", "headers": headers, "query_string": b"", "path_params": path})


def made(*policies: dict[str, Any], **settings: Any) -> places.Places:
    config = ServeConfig.parse({"policies": list(policies), **settings})
    return places.Places(lambda: config)


def busy(clock: Clock, ingress: places.Places, name: str, stack: ExitStack) -> None:
    """The robot's policy answers a request in 10 s, and has one."""
    for _ in range(3):
        with ingress.of(request(name), acts):
            clock.now += 10.0
    stack.enter_context(ingress.of(request(name), acts))


def test_a_request_that_would_wait_in_vain_is_refused(clock: Clock) -> None:
    ingress = made(TEXT, ROBOT)
    with ExitStack() as stack:
        busy(clock, ingress, "robot", stack)
        with pytest.raises(PolicyError, match="overloaded"), ingress.of(request(), acts):
            pass


def test_the_wait_of_one_policy_is_not_that_of_another(clock: Clock) -> None:
    ingress = made(TEXT, ROBOT)
    with ExitStack() as stack:
        busy(clock, ingress, "robot", stack)
        with ingress.of(request(timeout_s="0.1"), speaks):
            pass


def test_a_policy_that_only_the_body_names_is_not_guessed(clock: Clock) -> None:
    ingress = made(ROBOT, ROBOT | {"name": "other"})
    with ExitStack() as stack:
        busy(clock, ingress, "robot", stack)
        with ingress.of(request(timeout_s="0.1"), acts):
            pass
        with pytest.raises(PolicyError, match="overloaded"), ingress.of(request("robot"), acts):
            pass


def test_ingresses_share_the_seats_of_all_replicas(clock: Clock) -> None:
    ingress = made(TEXT | {"engine": {"max_num_seqs": 8}, "replicas": {"max_replicas": 3}}, ingress_replicas=2)
    with ingress.of(request(), speaks):
        pass
    assert clock.seats == [12]
