"""Failures as answers."""

from __future__ import annotations

from deployments.client.handle import failure_of
from deployments.errors import PolicyError
from deployments.replicas.failures import failure


def test_a_client_gets_back_what_the_replica_meant() -> None:
    meant = PolicyError("overloaded", "try later", "r1", 2.5, (("x-ratelimit-limit-requests", "3"),))
    told = failure_of(failure("r1", meant))
    assert (told.kind, told.message, told.request_id) == ("overloaded", "try later", "r1")
    assert (told.retry_after_s, told.rate_limit) == (2.5, (("x-ratelimit-limit-requests", "3"),))
