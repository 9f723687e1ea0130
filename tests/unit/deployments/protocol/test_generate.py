"""Requests and answers of the token interface."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from deployments.protocol.generate import GenerateFailure, GenerateRequest, GenerateResult, Sampling

WRONG = [
    ("ignore_eos", None), ("ignore_eos", 1), ("logprobs", "yes"), ("max_tokens", 4.0), ("max_tokens", True),
    ("max_tokens", 0), ("max_tokens", -1), ("temperature", "1"), ("temperature", None), ("temperature", float("nan")),
    ("temperature", -0.1), ("top_p", True), ("top_k", 1.5), ("min_p", None), ("seed", 1.0), ("seed", 2**63),
    ("seed", False), ("stop_token_ids", (None,)), ("banned_token_ids", (1.0,)), ("regex", 3), ("json_schema", "{}"),
]  # fmt: skip


@pytest.mark.parametrize(("field", "value"), WRONG)
def test_sampling_that_means_nothing_or_has_a_wrong_type_is_refused_by_name(field: str, value: Any) -> None:
    """`ignore_eos: null` ended the thread in which vLLM reads requests: nobody got an answer from then on."""
    with pytest.raises(ValueError, match=f"^{field} must"):
        Sampling(**{field: value})


def test_whole_numbers_are_allowed_where_a_fraction_may_stand() -> None:
    assert Sampling(temperature=0, top_p=1).top_p == 1


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
