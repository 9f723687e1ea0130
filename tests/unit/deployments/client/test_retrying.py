"""When clients try again."""

from __future__ import annotations

import time

import pytest

from deployments.client.retrying import async_retrying, retrying
from deployments.errors import PolicyError


class Server:
    """Fails with these errors, one per call, and then answers."""

    def __init__(self, *failures: PolicyError) -> None:
        self._failures = list(failures)
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        if self._failures:
            raise self._failures.pop(0)
        return "answer"


def failures(kind: str, number: int) -> list[PolicyError]:
    return [PolicyError(kind, f"failure {i}") for i in range(number)]


def test_a_passing_failure_is_tried_again() -> None:
    server = Server(*failures("unavailable", 2))

    assert retrying(retries=3, deadline_s=60)(server) == "answer"
    assert server.calls == 3


def test_tries_are_bounded_in_number_and_the_last_failure_is_told() -> None:
    server = Server(*failures("unavailable", 9))

    with pytest.raises(PolicyError, match="failure 2"):
        retrying(retries=2, deadline_s=60)(server)
    assert server.calls == 3


def test_a_mistake_is_not_tried_again() -> None:
    server = Server(*failures("invalid_request", 1))

    with pytest.raises(PolicyError):
        retrying(retries=3, deadline_s=60)(server)
    assert server.calls == 1


def test_no_try_begins_behind_the_deadline() -> None:
    server = Server(PolicyError("overloaded", "come back in an hour", retry_after_s=3600.0))

    with pytest.raises(PolicyError, match="come back"):
        retrying(retries=3, deadline_s=10)(server)
    assert server.calls == 1


def test_the_server_is_given_the_time_that_it_asks_for() -> None:
    server = Server(PolicyError("overloaded", "soon", retry_after_s=0.3))
    began = time.monotonic()

    retrying(retries=1, deadline_s=60)(server)

    assert time.monotonic() - began >= 0.3


async def test_asyncio_clients_try_again_alike() -> None:
    server = Server(*failures("unavailable", 1))

    async def call() -> str:
        return server()

    assert await async_retrying(retries=1, deadline_s=60)(call) == "answer"
