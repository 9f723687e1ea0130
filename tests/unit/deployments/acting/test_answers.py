"""The JSON object is found in whatever a model writes around it, with the slips that models make."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.acting.answers import UnreadableAnswer, object_in

KEYS = ["x", "y"]


@pytest.mark.parametrize(
    "text",
    [
        '{"x": ["forward", 0.5, "it\'s near"]}',
        'The cup is ahead.\n```json\n{"x": ["forward", 0.5, "it\'s near"]}\n```\nDone.',
        'The cup is ahead.\n```\n{"x": ["forward", 0.5, "it\'s near"]}',
        'I weigh {this} and {that}. {"x": ["forward", 0.5, "it\'s near"]} That is all {of it}.',
        'First ```json\n{"x": [null, 0, ""]}\n``` but rather ```json\n{"x": ["forward", 0.5, "it\'s near"]}\n```',
        '{"x": ["forward", 0.5, "it\'s near",],}',
        "{'x': ['forward', 0.5, 'it's near']}",
        "{'x': ['forward', 0.5, 'it's near',], 'y': None,}",
        '{"thought": "none", "x": ["forward", 0.5, "it\'s near"], "y": None}',
    ],
)
def test_the_object_is_found(text: str) -> None:
    assert object_in(text, KEYS)["x"] == ["forward", 0.5, "it's near"]


def test_words_and_commas_inside_strings_stay_as_they_are() -> None:
    text = '{"x": "None, ] True \\" ,}", "y": True,}'

    assert object_in(text, KEYS) == {"x": 'None, ] True " ,}', "y": True}


def test_a_line_break_inside_a_string_is_no_obstacle() -> None:
    assert object_in('{"x": "a\nb"}', KEYS) == {"x": "a\nb"}


@pytest.mark.parametrize(
    "text",
    ["", "I do not know.", "{", "}{", "[1, 2]", '{"z": 1}', '{"x": ', "```json\n```", "{" * 5000, '{"x":' * 5000],
)
def test_what_holds_no_such_object_is_unreadable(text: str) -> None:
    with pytest.raises(UnreadableAnswer, match="no JSON object with any of the keys x, y"):
        object_in(text, KEYS)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=8,
)


@given(value=json_values, before=st.text(alphabet=st.characters(exclude_characters="{`"), max_size=40))
def test_valid_json_after_prose_is_never_mended_wrongly(value: object, before: str) -> None:
    assert object_in(before + json.dumps({"x": value}), KEYS) == {"x": value}


@given(text=st.text(alphabet="{}[]'\",:`x1 \\\nNone", max_size=60))
def test_whatever_comes_it_is_an_object_or_unreadable(text: str) -> None:
    with contextlib.suppress(UnreadableAnswer):
        assert isinstance(object_in(text, KEYS), dict)
