"""Requests and answers of the token interface."""

from __future__ import annotations

import pickle

import pytest

from deployments.protocol.generate import GenerateFailure, GenerateRequest, GenerateResult, Sampling


@pytest.mark.parametrize(("field", "value"), [("max_tokens", 0), ("max_tokens", -1), ("temperature", -0.1)])
def test_sampling_that_means_nothing_is_refused_by_name(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        Sampling(**{field: value})


def test_greedy_sampling_is_allowed() -> None:
    assert Sampling(temperature=0.0, max_tokens=1).temperature == 0


@pytest.mark.parametrize(
    "message",
    [
        GenerateRequest("r", [1, 2], Sampling(seed=3, regex="a|b"), "session", 4, 5.0),
        GenerateResult("r", [3], [-0.5], 4, "stop", 5, 1.0, 2.0),
        GenerateFailure("r", "stale_weights", "why"),
    ],
    ids=lambda message: type(message).__name__,
)
def test_messages_travel_between_processes_unchanged(message: object) -> None:
    assert pickle.loads(pickle.dumps(message)) == message
