"""The environment's side of the protocol, played here over a pair of sockets."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from envs import registry
from envs.bridges import wire
from envs.bridges.env_server import Host, serve
from envs.games.tictactoe import TicTacToe

FAULTY = "tests.unit.envs.bridges.faulty"


@pytest.fixture
def channel() -> Iterator[wire.Channel]:
    ours, theirs = socket.socketpair()
    serving = threading.Thread(target=serve, args=(wire.Channel(theirs),))
    with ours, theirs:
        serving.start()
        yield wire.Channel(ours)
        wire.Channel(ours).shut()
        serving.join()


def asked(channel: wire.Channel, **request: Any) -> Any:
    channel.send(request)
    answer, _ = channel.receive()
    return answer


def test_the_first_frame_carries_the_version_of_the_protocol(channel: wire.Channel) -> None:
    hello, _ = channel.receive()
    assert hello["protocol"] == wire.PROTOCOL


def test_an_environment_is_played_and_its_errors_are_answers(channel: wire.Channel) -> None:
    channel.receive()
    assert asked(channel, call="reset", seed=1)["error"]["message"] == "no environment is made: call make first"
    assert asked(channel, call="make", name="tictactoe", settings={"x": 1})["error"]["kind"] == "setting"
    assert asked(channel, call="make", name="tictactoe", settings={})["value"]["name"] == "tictactoe"
    assert asked(channel, call="step", action="?")["error"]["kind"] == "over"
    assert asked(channel, call="reset", seed=1)["value"]["text"] == registry.make("tictactoe").reset(1).text
    assert asked(channel, call="step", action="?")["value"]["info"]["parse_ok"] is False
    assert asked(channel, call="dance")["error"]["message"].startswith("unknown call")
    assert asked(channel, call="close") == {"value": None}


def test_an_environment_is_closed_before_the_next_is_made_and_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[TicTacToe] = []
    monkeypatch.setattr(TicTacToe, "close", lambda self: closed.append(self))
    host = Host()
    make = {"call": "make", "name": "tictactoe", "settings": {}}
    host.answer(make)
    host.answer(make)
    assert len(closed) == 1
    host.close()
    host.close()
    assert len(closed) == 2


def test_a_result_that_is_none_is_an_error_and_the_next_call_is_answered(channel: wire.Channel) -> None:
    channel.receive()
    asked(channel, call="make", name=f"{FAULTY}:Odd", settings={})
    asked(channel, call="reset", seed=1)
    error = asked(channel, call="step", action="fail")["error"]
    assert (error["type"], error["message"]) == ("KeyError", "'level'")
    assert "faulty.py" in error["traceback"]
    assert asked(channel, call="step", action="?")["value"]["reward"] == 0.5
