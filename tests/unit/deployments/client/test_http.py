"""The HTTP client, against a real server on this machine."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from deployments.client.http import PolicyClient
from deployments.errors import PolicyError


class Server(ThreadingHTTPServer):
    """Gives the answers of its list one after the other, the last one for ever; keeps what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[tuple[int, bytes]] = []
        self.asked: list[dict[str, Any]] = []
        self.silence = threading.Event()  # while it is not set, nothing is answered
        self.silence.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def answer(self, status: int, body: Any) -> None:
        self.answers.append((status, body if isinstance(body, bytes) else json.dumps(body).encode()))


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        self.server.asked.append(
            {
                "method": self.command,
                "path": self.path,
                "request_id": self.headers["x-request-id"],
                "timeout_s": self.headers["x-timeout-s"],
                "body": json.loads(self.rfile.read(length) or b"null"),
            }
        )
        self.server.silence.wait(30)
        answers = self.server.answers
        status, body = answers.pop(0) if len(answers) > 1 else answers[0]
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *_: Any) -> None:
        return


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield running
        running.silence.set()
        running.shutdown()
        thread.join()


def test_a_completion_is_one_post_in_openais_format(server: Server) -> None:
    server.answer(200, {"choices": [{"text": "hello"}], "weight_version": 3})
    with PolicyClient(server.url) as client:
        answer = client.complete([1, 2, 3], model="policy", max_tokens=4)
    assert answer["weight_version"] == 3
    (asked,) = server.asked
    assert (asked["method"], asked["path"]) == ("POST", "/v1/completions")
    assert asked["body"] == {"model": "policy", "prompt": [1, 2, 3], "max_tokens": 4}


def test_chat_models_and_health_have_their_routes(server: Server) -> None:
    server.answer(200, {"data": [{"id": "a"}, {"id": "b"}]})
    with PolicyClient(server.url) as client:
        assert client.models() == ["a", "b"]
        client.health()
        client.chat([{"role": "user", "content": "hi"}], max_tokens=1)
    routes = [(asked["method"], asked["path"]) for asked in server.asked]
    assert routes == [("GET", "/v1/models"), ("GET", "/health"), ("POST", "/v1/chat/completions")]
    assert server.asked[2]["body"]["messages"] == [{"role": "user", "content": "hi"}]


def test_what_may_pass_later_is_tried_again_under_the_same_request_id(server: Server) -> None:
    server.answer(503, {"kind": "stale_weights", "message": "version 7"})
    server.answer(429, {"kind": "overloaded", "message": "full"})
    server.answer(200, {"status": "ok"})
    with PolicyClient(server.url, retries=3) as client:
        assert client.health() == {"status": "ok"}
    assert len(server.asked) == 3
    assert len({asked["request_id"] for asked in server.asked}) == 1


def test_each_call_has_a_request_id_of_its_own(server: Server) -> None:
    server.answer(200, {})
    with PolicyClient(server.url) as client:
        client.health()
        client.health()
    first, second = (asked["request_id"] for asked in server.asked)
    assert first
    assert first != second


def test_after_the_last_try_the_servers_kind_is_raised(server: Server) -> None:
    server.answer(503, {"kind": "engine_failed", "message": "the engine broke"})
    with PolicyClient(server.url, retries=1) as client, pytest.raises(PolicyError, match="the engine broke") as caught:
        client.health()
    assert caught.value.kind == "engine_failed"
    assert caught.value.request_id == server.asked[0]["request_id"]
    assert len(server.asked) == 2


@pytest.mark.parametrize(("status", "kind"), [(400, "invalid_request"), (404, "not_found"), (413, "too_large")])
def test_the_callers_own_fault_is_raised_at_once(server: Server, status: int, kind: str) -> None:
    server.answer(status, {"kind": kind, "message": "no"})
    with PolicyClient(server.url) as client, pytest.raises(PolicyError) as caught:
        client.complete("x")
    assert caught.value.kind == kind
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (401, {"error": "no key"}, "unauthenticated"),  # of a proxy that does not know our kinds
        (404, b"<html>no such page</html>", "not_found"),
        (500, b"", "internal"),
        (500, [], "internal"),  # JSON, but no object
        (400, {"kind": "of a later version", "message": "?"}, "invalid_request"),
    ],
)
def test_an_answer_without_a_kind_of_ours_is_read_by_its_status(
    server: Server, status: int, body: Any, kind: str
) -> None:
    server.answer(status, body)
    with PolicyClient(server.url, retries=0) as client, pytest.raises(PolicyError) as caught:
        client.health()
    assert caught.value.kind == kind


def test_a_server_that_is_gone_is_unavailable(server: Server) -> None:
    gone = Server()
    url = gone.url
    gone.server_close()
    with PolicyClient(url, retries=0) as client, pytest.raises(PolicyError, match="cannot be reached") as caught:
        client.health()
    assert caught.value.kind == "unavailable"


def test_a_server_that_says_nothing_is_a_missed_deadline(server: Server) -> None:
    server.answer(200, {})
    server.silence.clear()
    with PolicyClient(server.url, timeout_s=0.2, retries=0) as client, pytest.raises(PolicyError) as caught:
        client.health()
    assert caught.value.kind == "deadline_exceeded"


def test_the_server_is_told_how_long_the_client_waits(server: Server) -> None:
    server.answer(200, {"choices": []})
    with PolicyClient(server.url, timeout_s=2.5) as client:
        client.complete("You")
    assert server.asked[0]["timeout_s"] == "2.5"
