"""One table says what every failure of a request is in HTTP, in gRPC, and for a retry."""

from __future__ import annotations

import json
import pickle

import grpc
import pytest

from deployments.errors import TABLE, PolicyError

kinds = pytest.mark.parametrize("kind", TABLE)


@kinds
def test_every_kind_has_a_status_a_code_and_a_meaning(kind: str) -> None:
    entry = TABLE[kind]
    assert 400 <= entry.http_status < 600
    assert entry.grpc_code in grpc.StatusCode.__members__
    assert entry.meaning


@kinds
def test_what_is_the_callers_fault_is_not_tried_again(kind: str) -> None:
    entry = TABLE[kind]
    may_pass_later = entry.http_status in (408, 429, 503)
    assert entry.retryable == may_pass_later


@kinds
def test_an_error_keeps_all_it_says_when_it_travels_between_processes(kind: str) -> None:
    sent = PolicyError(kind, "why", "request-1", retry_after_s=2.5, rate_limit=(("x-ratelimit-limit-requests", "5"),))
    got = pickle.loads(pickle.dumps(sent))
    assert (got.kind, got.message, got.request_id, got.retry_after_s) == (kind, "why", "request-1", 2.5)
    assert got.rate_limit == (("x-ratelimit-limit-requests", "5"),)
    assert (got.http_status, got.retryable) == (TABLE[kind].http_status, TABLE[kind].retryable)
    assert str(got) == f"{kind}: why"


def test_the_body_names_kind_message_and_request_and_is_json() -> None:
    body = json.loads(json.dumps(PolicyError("stale_weights", "version 7 is not there", "r").body()))
    assert body["kind"] == "stale_weights"
    assert body["message"] == "version 7 is not there"
    assert body["request_id"] == "r"


def test_a_failure_keeps_all_it_says_under_the_id_of_its_request() -> None:
    limit = (("x-ratelimit-remaining-requests", "0"),)
    named = PolicyError("overloaded", "full", "r", 7.2, limit).of_request("the client's")
    assert (named.kind, named.message, named.request_id) == ("overloaded", "full", "the client's")
    assert (named.retry_after_s, named.rate_limit) == (7.2, limit)


def test_a_refusal_says_when_to_come_back_in_whole_seconds_that_are_never_too_few() -> None:
    limit = (("x-ratelimit-remaining-requests", "0"),)
    assert PolicyError("overloaded", "full", "r", 7.2, limit).headers() == {
        "Retry-After": "8",
        "x-ratelimit-remaining-requests": "0",
    }
    assert PolicyError("unavailable", "no replica").headers() == {"Retry-After": "1"}
    assert PolicyError("invalid_request", "why").headers() == {}


def test_a_kind_that_does_not_exist_is_a_defect() -> None:
    with pytest.raises(KeyError, match=r"unknown error kind 'oops'; known: invalid_request"):
        PolicyError("oops", "why")
