"""Frames carry observations, results and errors as they were, and nothing that could run."""

from __future__ import annotations

import math
import socket
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from envs.base import EnvSpec, EpisodeOver, Observation, SettingError, StepResult
from envs.bridges import wire
from envs.registry import UnknownEnvironment


@pytest.fixture
def ends() -> Iterator[tuple[wire.Channel, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield wire.Channel(ours), theirs


def carried(document: dict[str, Any], image: np.ndarray | None = None) -> tuple[dict[str, Any], bytes]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        wire.Channel(ours).send(document, image)
        return wire.Channel(theirs).receive()


def test_an_observation_arrives_with_its_picture_its_tools_and_a_lone_surrogate() -> None:
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)[:, ::2]  # not contiguous
    tool = {"type": "function", "function": {"name": "f"}}
    sent = Observation("lone \ud800", image, "note", (tool,), (("user", "before"),))

    found = wire.read_observation(*carried(*wire.written_observation(sent)))

    assert found == sent
    assert found.image is not None
    assert np.array_equal(found.image, image)
    assert found.image.flags.writeable


def test_a_result_arrives_with_pythons_numbers() -> None:
    sent = StepResult(
        Observation("?"), np.float32(0.1), np.bool_(True), False, True, {"rewards": {"won": np.float64(math.nan)}}
    )

    found = wire.read_result(*carried(*wire.written_result(sent)))

    assert (found.reward, found.terminated, found.success) == (float(np.float32(0.1)), True, True)
    assert type(found.reward) is float
    assert math.isnan(found.info["rewards"]["won"])


def test_a_reward_is_the_number_it_would_be_here_and_no_text_becomes_one() -> None:
    assert wire.plain(Fraction(1, 2)) == 0.5
    assert wire.plain("1") == "1"
    assert wire.plain(None) is None


def test_what_json_cannot_hold_is_refused_among_tools_and_shown_in_info() -> None:
    assert wire.plain({1: {2}}) == {"1": "{2}"}
    with pytest.raises(TypeError, match="set is not JSON serializable"):
        carried(*wire.written_observation(Observation("?", tools=({"name": {1}},))))


def test_a_specification_arrives_whole() -> None:
    spec = EnvSpec("x", "y", "z", ".*", 3, math.inf, 1.0, failure_return=-1.0, extra={"limits": (1, 2)})
    found = wire.read_spec(carried(wire.written_spec(spec))[0])
    assert wire.written_spec(found) == wire.written_spec(spec)
    assert found.best_return == math.inf


@pytest.mark.parametrize(
    ("raised", "cls", "message"),
    [
        (SettingError("no setting x"), SettingError, "no setting x"),
        (UnknownEnvironment("no environment x"), wire.ERRORS["usage"], "no environment x"),
        (EpisodeOver("call reset"), EpisodeOver, "call reset"),
        (KeyError("level"), wire.EnvRaised, "KeyError: 'level'"),
    ],
)
def test_an_error_is_of_the_type_that_its_caller_tells_apart(
    raised: Exception, cls: type[Exception], message: str
) -> None:
    document, _ = carried(wire.written_error(raised, "Traceback: there"))
    found = wire.read_error(document["error"])
    assert (type(found), str(found)) == (cls, message)
    assert "Traceback: there" in found.__notes__[0]


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (wire.LENGTHS.pack(2**31, 0), "2147483648 bytes"),
        (wire.LENGTHS.pack(0, 2**31), "2147483648 bytes"),
        (wire.LENGTHS.pack(3, 0) + b"abc", "not JSON"),
        (wire.LENGTHS.pack(2, 0) + b"[]", "no JSON object"),
        (wire.LENGTHS.pack(9, 0) + b"{}", "closed"),
        (b"\0", "closed"),
        (b"", "closed"),
    ],
)
def test_what_is_no_frame_is_an_environment_that_was_lost(
    ends: tuple[wire.Channel, socket.socket], sent: bytes, said: str
) -> None:
    channel, theirs = ends
    theirs.sendall(sent)
    theirs.close()
    with pytest.raises(wire.EnvLost, match=said):
        channel.receive()


def test_a_frame_to_nobody_is_an_environment_that_was_lost(ends: tuple[wire.Channel, socket.socket]) -> None:
    channel, theirs = ends
    theirs.close()
    with pytest.raises(wire.EnvLost, match="closed"):
        channel.send({"call": "render"})
