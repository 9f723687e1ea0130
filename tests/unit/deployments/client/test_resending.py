"""When a request goes to another replica."""

from __future__ import annotations

import pytest

from deployments.client.resending import RESENDS, resending
from deployments.errors import PolicyError


class Replicas:
    """The first ones die of the question, in their own way; the next one answers."""

    def __init__(self, *deaths: Exception) -> None:
        self._deaths = list(deaths)
        self.asked = 0

    async def __call__(self, question: str) -> str:
        self.asked += 1
        if self._deaths:
            raise self._deaths.pop(0)
        return f"answer to {question}"


GONE = PolicyError("unavailable", "the replica is gone")


async def test_a_lost_call_is_made_again() -> None:
    replicas = Replicas(GONE)
    assert await resending()(replicas, "q") == "answer to q"
    assert replicas.asked == 2


async def test_a_request_that_kills_its_replicas_does_not_go_through_all_of_them() -> None:
    replicas = Replicas(*[GONE] * 9)
    with pytest.raises(PolicyError, match="gone"):
        await resending()(replicas, "q")
    assert replicas.asked == 1 + RESENDS


@pytest.mark.parametrize("kind", ["deadline_exceeded", "overloaded", "invalid_request"])
async def test_other_failures_are_told_at_once(kind: str) -> None:
    replicas = Replicas(PolicyError(kind, "no"))
    with pytest.raises(PolicyError, match=kind):
        await resending()(replicas, "q")
    assert replicas.asked == 1
