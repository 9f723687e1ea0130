"""Answers are read as actions of every supported kind of space; what the grammar's regex accepts, and no more, is
well-formed."""

from __future__ import annotations

import random
import re
from typing import Any

import numpy as np
import pytest
from gymnasium import Space, spaces

from envs.base import SettingError
from envs.bridges.gym_actions import grammar

SPACES: dict[str, Space[Any]] = {
    "discrete": spaces.Discrete(3),
    "shifted": spaces.Discrete(3, start=-1),
    "integers": spaces.MultiDiscrete([2, 3]),
    "grid of integers": spaces.MultiDiscrete([[2, 3], [4, 5]]),
    "bits": spaces.MultiBinary(3),
    "numbers": spaces.Box(np.array([-0.7, 0.0], np.float32), np.array([0.7, 1e-3], np.float32)),
    "float64": spaces.Box(-1 / 3, 1 / 3, (2, 2), np.float64),
    "unbounded": spaces.Box(-np.inf, np.inf, (2,)),
    "half bounded": spaces.Box(np.array([0, -np.inf]), np.array([np.inf, 5]), dtype=np.float64),
    "bytes": spaces.Box(0, 255, (2,), np.uint8),
    "long integers": spaces.Box(-(2**62), 2**62, (1,), np.int64),
}


@pytest.mark.parametrize("name", SPACES)
def test_a_drawn_action_is_legal_and_reads_back_as_it_was_written(name: str) -> None:
    space, rng = SPACES[name], random.Random(0)
    its = grammar(space, None)

    for _ in range(200):
        action = its.draw(rng)
        written = its.write(action)
        assert space.contains(action), action
        assert re.fullmatch(its.regex, written)
        read = its.read(written)
        assert read is not None
        assert (np.asarray(read[0]) == np.asarray(action)).all()
        assert read[1]
        assert space.contains(read[0])


@pytest.mark.parametrize("name", SPACES)
def test_draws_depend_on_the_given_generator_alone_and_differ(name: str) -> None:
    its = grammar(SPACES[name], None)

    first, second = (
        [np.ravel(its.draw(rng)).tolist() for _ in range(30)] for rng in (random.Random(1), random.Random(1))
    )

    assert first == second
    assert all(len(set(numbers)) > 1 for numbers in zip(*first, strict=True))


def test_the_bounds_themselves_are_legal_in_the_type_of_the_space() -> None:
    """0.7 as float32 is a little less than 0.7."""
    its = grammar(spaces.Box(-0.7, 0.7, (2,), np.float32), None)

    action, within = its.read("[0.7, -0.7]") or (None, False)

    assert within
    assert action.tolist() == np.array([0.7, -0.7], np.float32).tolist()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "content", "played"),
    [
        ("numbers", "[0.9, 0.0005]", [np.float32(0.7), np.float32(0.0005)]),
        ("numbers", "[-1e99, 1e99]", [np.float32(-0.7), np.float32(1e-3)]),
        ("unbounded", "[1e99, 2]", [1e6, 2]),
        ("bytes", "[-1, 256]", [0, 255]),
    ],
)
def test_numbers_out_of_bounds_are_clipped_and_illegal(name: str, content: str, played: list[Any]) -> None:
    action, within = grammar(SPACES[name], None).read(content) or (None, True)

    assert not within
    assert action.tolist() == played  # type: ignore[attr-defined]
    assert SPACES[name].contains(action)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("discrete", "3"),
        ("discrete", "-1"),
        ("discrete", "one"),
        ("discrete", "1.0"),
        ("discrete", "٣"),  # a digit, but not one of 0-9
        ("discrete", "9" * 5000),  # Python refuses to read so long an integer
        ("integers", "[0]"),
        ("integers", "[0, 3]"),
        ("integers", "[0, 1, 0]"),
        ("bits", "[0, 1, 2]"),
        ("numbers", "[nan, 0]"),
        ("numbers", "[inf, 0]"),
        ("numbers", "[1_0, 0]"),
        ("numbers", "[0.1 0.2]"),
        ("numbers", ""),
        ("bytes", "[0.5, 1]"),
    ],
)
def test_malformed_answers_are_data(name: str, content: str) -> None:
    its = grammar(SPACES[name], None)

    assert its.read(content) is None
    assert not re.fullmatch(its.regex, content)


@pytest.mark.parametrize(
    ("name", "content", "action"),
    [
        ("discrete", "+02", 2),
        ("shifted", "-1", -1),
        ("integers", "1,2", [1, 2]),
        ("grid of integers", "[1, 2, 3, 4]", [[1, 2], [3, 4]]),
        ("unbounded", "[ .5 , -1e-2 ]", [np.float32(0.5), np.float32(-0.01)]),
    ],
)
def test_other_ways_to_write_the_same_action_are_understood(name: str, content: str, action: Any) -> None:
    read = grammar(SPACES[name], None).read(content)

    assert read is not None
    assert np.asarray(read[0]).tolist() == action


def test_named_actions_are_said_by_name_only() -> None:
    its = grammar(spaces.Discrete(2, start=5), ["Stick", "hit (one)"])

    assert its.read("hit (one)") == (6, True)
    assert its.read("stick") == (5, True)
    assert its.read("5") is None
    assert its.write(5) == "Stick"
    assert re.fullmatch(its.regex, "hit (one)")
    assert its.hint == "Stick or hit (one)"


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        (["left"], "all 2 actions, got 1: left"),
        (["left", "LEFT"], "different texts"),
        (["<left", "right"], "without '<'"),
        ([False, True], "in YAML, put yes, no, on, off in quotes"),
        ("lr", "must be a list of texts"),
    ],
)
def test_names_of_actions_that_cannot_be_told_apart_are_refused(names: Any, complaint: str) -> None:
    with pytest.raises(SettingError, match=complaint):
        grammar(spaces.Discrete(2), names)


def test_a_kind_of_action_without_a_grammar_is_refused() -> None:
    with pytest.raises(SettingError, match="kind Dict are not supported"):
        grammar(spaces.Dict({"a": spaces.Discrete(2)}), None)
    with pytest.raises(SettingError, match="actions names those of a Discrete space"):
        grammar(spaces.MultiBinary(2), ["a", "b"])


def test_an_action_of_an_expert_that_the_space_lacks_raises() -> None:
    with pytest.raises(ValueError, match="none of the actions 0, 1"):
        grammar(spaces.Discrete(2), None).write(-1)
