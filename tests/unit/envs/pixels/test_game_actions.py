"""Actions as dictionaries and as text."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.pixels.game_actions import (
    BUTTONS,
    CAMERA,
    JSON_REGEX,
    WORDS,
    WORDS_REGEX,
    BadAction,
    GameAction,
    as_json,
    as_words,
    from_json,
    from_words,
    full_action,
    no_op,
)


def test_an_action_has_the_keys_of_basalt() -> None:
    assert len(BUTTONS) == 21
    assert full_action({}) == no_op() == {**dict.fromkeys(BUTTONS, 0), CAMERA: [0.0, 0.0]}


def test_camera_angles_are_clamped_to_half_a_turn() -> None:
    assert full_action({CAMERA: [-181, 180.5]})[CAMERA] == [-180.0, 180.0]
    assert full_action({CAMERA: (1e300, -179.5)})[CAMERA] == [180.0, -179.5]


def test_numbers_and_arrays_of_numpy_are_taken_as_action_spaces_draw_them() -> None:
    drawn = {"forward": np.int64(1), "hotbar.3": np.array(1), "ESC": np.array(0), CAMERA: np.array([3, -4], np.float32)}
    assert full_action(drawn) == {**no_op(), "forward": 1, "hotbar.3": 1, CAMERA: [3.0, -4.0]}


@pytest.mark.parametrize(
    "given_action",
    [
        {"fly": 1},
        {"forward": 2},
        {"forward": -1},
        {"forward": 1.0},
        {"forward": True},
        {"forward": "1"},
        {"forward": None},
        {"forward": np.array([1])},
        {"forward": np.array(0.5)},
        {CAMERA: [1]},
        {CAMERA: [1, 2, 3]},
        {CAMERA: "12"},
        {CAMERA: {"pitch": 1}},
        {CAMERA: [float("nan"), 0]},
        {CAMERA: [float("inf"), 0]},
        {CAMERA: [True, 0]},
        {CAMERA: [10**400, 0]},
        {CAMERA: ["1", 0]},
        {1: 1},
    ],
)
def test_an_unknown_key_or_a_value_of_another_kind_is_no_action(given_action: dict[object, object]) -> None:
    with pytest.raises(BadAction):
        full_action(given_action)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    [
        '{"forward": 1, "camera": [0, 30]}',
        '{"reasoning": "It\'s over there", "action": {"forward": 1, "camera": [0, 30]}}',
        'I go there:\n```json\n{"action": {"camera": [0.0, 30.0], "forward": 1}}\n```',
    ],
)
def test_json_is_read_bare_with_a_reasoning_and_in_a_fence(text: str) -> None:
    assert from_json(text) == {**no_op(), "forward": 1, CAMERA: [0.0, 30.0]}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "forward",
        "[1]",
        '{"forward": 1',
        '{"action": 1}',
        '{"action": {"jumpp": 1}}',
        '{"action": {}, "why": 1}',
        '{"action": {}, "reasoning": 3}',
        '{"reasoning": "no action"}',
        '{"camera": [NaN, 0]}',
        pytest.param('{"a":' * 100_000 + "1" + "}" * 100_000, id="deep"),
        pytest.param('{"camera": [' + "9" * 5000 + ", 0]}", id="long"),
        "}{",
        "\ud800",
    ],
)
def test_what_is_no_action_in_json_is_named_as_such(text: str) -> None:
    with pytest.raises(BadAction):
        from_json(text)


def test_words_press_keys_and_their_turns_add_up() -> None:
    action = from_words("<action> Forward sprint turn_left turn_left look_down</action>")
    assert action == {**no_op(), "forward": 1, "sprint": 1, CAMERA: [15.0, -30.0]}
    assert from_words("<action>none") == no_op()
    assert from_words("<action>esc</action>")["ESC"] == 1


@pytest.mark.parametrize(
    "text", ["", "forward", "<action></action>", "<action>fly</action>", f"<action>{'jump ' * 7}</action>"]
)
def test_what_is_no_action_in_words_is_named_as_such(text: str) -> None:
    with pytest.raises(BadAction):
        from_words(text)


@given(st.sets(st.sampled_from(BUTTONS)), st.integers(-180, 180), st.integers(-18000, 18000))
def test_what_is_written_as_json_is_read_again_and_matches_the_grammar(
    pressed: set[str], pitch: int, hundredths: int
) -> None:
    text = as_json(sorted(pressed), pitch, hundredths / 100)
    expected: GameAction = {**no_op(), **dict.fromkeys(pressed, 1), CAMERA: [float(pitch), hundredths / 100]}
    assert from_json(text) == expected
    assert re.fullmatch(JSON_REGEX, text)


@given(st.lists(st.sampled_from(WORDS), max_size=6))
def test_what_is_written_as_words_is_read_again_and_matches_the_grammar(words: list[str]) -> None:
    text = as_words(words)
    from_words(text)
    assert re.fullmatch(WORDS_REGEX, text)


@pytest.mark.parametrize(
    ("regex", "read", "texts"),
    [
        (
            JSON_REGEX,
            from_json,
            ['{"reasoning": "I see it: there\'s a pond.", "action": {"hotbar.1": 1, "ESC": 0}}', "{}"],
        ),
        (WORDS_REGEX, from_words, ["<action>left use none</action>"]),
    ],
)
def test_what_the_grammar_allows_can_be_read(regex: str, read: Callable[[str], GameAction], texts: list[str]) -> None:
    for text in texts:
        assert re.fullmatch(regex, text)
        read(text)
    assert not re.fullmatch(regex, "nonsense")
