"""Text of a policy becomes an action, or None; it never raises."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envs.parsing import raw_tag_content, tag_content, tagged_int


@given(st.text())
def test_no_text_breaks_the_parser(text: str) -> None:
    tag_content(text, "action")
    raw_tag_content(text, "action")
    tagged_int(text, "move")


@given(st.integers(-999_999_999, 999_999_999), st.text(alphabet=st.characters(exclude_characters="<")))
def test_an_integer_in_its_tag_is_read_whatever_stands_around_it(number: int, around: str) -> None:
    assert tagged_int(f"{around}<move> {number} </move>{around}", "move") == number


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<action>up</action><action>down</action>", "down"),  # the last one counts
        ("<ACTION> Up </ACTION>", "up"),
        ("<action>left<other>", "left"),  # ended by the next tag
        ("<action></action>", ""),
        ("up", None),
        ("<reaction>up</reaction>", None),
    ],
)
def test_the_content_of_the_last_tag_is_the_action(text: str, expected: str | None) -> None:
    assert tag_content(text, "action") == expected


def test_raw_content_keeps_its_case() -> None:
    assert raw_tag_content("<note> Key at (1, 2) </note>", "note") == "Key at (1, 2)"


@pytest.mark.parametrize("content", ["", "five", "5.0", "1e3", "1 2", "0x10", "\u0665", "1" * 10, "+-1"])
def test_what_is_no_plain_integer_is_no_number(content: str) -> None:
    assert tagged_int(f"<move>{content}</move>", "move") is None


def test_a_tag_name_is_not_a_pattern() -> None:
    assert tag_content("<axb>up</axb>", "a.b") is None
