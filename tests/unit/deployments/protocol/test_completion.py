"""Plain completions between ingress and replica."""

from __future__ import annotations

import pickle

import pytest

from deployments.protocol.completion import Completion, CompletionRequest
from deployments.protocol.generate import Sampling


def test_the_sooner_of_the_two_deadlines_counts() -> None:
    assert CompletionRequest("r", "x", deadline_s=5.0).remaining_s(now_unix_s=1000.0) == 5.0
    assert CompletionRequest("r", "x", deadline_s=5.0, deadline_unix_s=1002.0).remaining_s(1000.0) == 2.0
    assert CompletionRequest("r", "x", deadline_s=5.0, deadline_unix_s=1060.0).remaining_s(1000.0) == 5.0
    assert CompletionRequest("r", "x", deadline_s=5.0, deadline_unix_s=999.0).remaining_s(1000.0) <= 0


@pytest.mark.parametrize("prompt", ["", "hello", "\U0001f600" * 9, [1, 2, 3], [200_000] * 9])
def test_the_size_is_no_less_than_what_the_prompt_takes(prompt: str | list[int]) -> None:
    request = CompletionRequest("r", prompt)
    taken = len(prompt.encode()) if isinstance(prompt, str) else len(pickle.dumps(prompt)) - len(pickle.dumps([]))
    assert request.size_bytes >= taken - 16  # a few bytes of pickle's own per list


def test_messages_travel_between_processes_unchanged() -> None:
    for message in (CompletionRequest("r", [1], Sampling(seed=2)), Completion("r", "hi", "stop", 1, 2, 3)):
        assert pickle.loads(pickle.dumps(message)) == message
