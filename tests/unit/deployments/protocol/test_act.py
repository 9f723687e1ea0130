"""Sessions, and what time a request has left."""

from __future__ import annotations

import numpy as np
import pytest

from deployments.protocol.act import ActRequest, ChunkRequest, Observation, is_one_client


@pytest.mark.parametrize(
    ("session_id", "one"), [("robot 3", True), ("stream 9", True), ("", False), ("address 10.0.0.7", False)]
)
def test_only_a_session_with_a_name_of_its_own_is_surely_one_client(session_id: str, one: bool) -> None:
    assert is_one_client(session_id) is one


def test_what_is_left_is_counted_from_now_and_a_replica_may_leave_less() -> None:
    asked = ActRequest("1", Observation(), "s", deadline_unix_s=100.0)
    chunk = ChunkRequest(
        "1", np.zeros((1, 1, 1, 3), np.uint8), np.ones(1, np.bool_), np.zeros(1, np.float32), "", deadline_s=3.0
    )

    assert (asked.remaining_s(99.0), asked.remaining_s(101.0)) == (1.0, -1.0)
    assert chunk.remaining_s(99.0) == 3.0
