"""A forwarded HTTP exchange between ingress and replica."""

from __future__ import annotations

import pickle

from deployments.protocol.exchange import HttpCall, HttpHead


def test_a_call_knows_how_long_its_answer_may_still_take() -> None:
    call = HttpCall("r", "POST", "/v1/chat/completions", "", (("accept", "*/*"),), b"{}", deadline_unix_s=1003.0)
    assert call.remaining_s(1000.0) == 3.0
    assert call.remaining_s(1004.0) < 0
    assert pickle.loads(pickle.dumps(call)) == call


def test_the_head_of_an_answer_says_which_weights_began_it() -> None:
    head = HttpHead(200, (("content-type", "application/json"),), weight_version=7)
    assert pickle.loads(pickle.dumps(head)).weight_version == 7
