"""What is read as a call, and what is not."""

from __future__ import annotations

import pytest

from envs.tools.tool_calls import LONGEST, Call, Unreadable, from_python, read_calls


def test_native_calls_are_read_in_their_order() -> None:
    text = (
        'Let me see.\n<tool_call>\n{"name": "a.b", "arguments": {"x": 1, "y": [true, null]}}\n</tool_call>\n'
        '<tool_call>{"name": "c", "arguments": "{\\"z\\": 2.5}"}'
    )
    assert read_calls(text) == [Call("a.b", {"x": 1, "y": [True, None]}), Call("c", {"z": 2.5})]


def test_calls_in_a_tag_are_read_as_python() -> None:
    text = "<function_calls>[f(a=1)]</function_calls> no: <function_calls>[g.h(b='x', c=(1, 2)), k()]</function_calls>"
    assert read_calls(text) == [Call("g.h", {"b": "x", "c": (1, 2)}), Call("k", {})]
    assert read_calls("<function_calls>[]</function_calls>") == []


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("-1", -1),
        ("+2.5", 2.5),
        ("5 / 100", 0.05),
        ("2 * 3 - 1", 5),
        ("2 ** 10", 1024),
        ("True", True),
        ("None", None),
        ("name", "name"),
        ("{'a': [1, {'b': ()}]}", {"a": [1, {"b": ()}]}),
        ("inner(x=1)", {"inner": {"x": 1}}),
        ("inner(1)", "inner(1)"),
        ("table[0]", "table[0]"),
        ("...", "..."),
    ],
)
def test_a_value_is_what_the_leaderboard_takes_it_for(written: str, value: object) -> None:
    [call] = from_python(f"f(a={written})")
    assert call.arguments == {"a": value}
    assert type(call.arguments["a"]) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        "f(a=1)",
        "",
        "<tool_call>f</tool_call>",
        '<tool_call>{"name": 1, "arguments": {}}</tool_call>',
        '<tool_call>{"name": "f", "arguments": [1]}</tool_call>',
        '<tool_call>["f"]</tool_call>',
        '<tool_call>{"name": "f"}</tool_call><tool_call>{</tool_call>',
        "<function_calls>[f(a=1]</function_calls>",
        "<function_calls>[1, 2]</function_calls>",
        "<function_calls>[f(**x)]</function_calls>",
        "<function_calls>[f(a=lambda: 1)]</function_calls>",
        "<function_calls>[f(a={**b})]</function_calls>",
        "<function_calls>[f(a={[]: 1})]</function_calls>",
        "<function_calls>[f(a=1 / 0)]</function_calls>",
        "<function_calls>[f(a=9 ** 9 ** 9)]</function_calls>",
        "<function_calls>[f(a='x' * 1000000000)]</function_calls>",
        "<function_calls>[f(a=b'\\xff', c=(x for x in y))]</function_calls>",
        "<function_calls>" + "[" * 5000 + "</function_calls>",
        "<function_calls>f(a=" + "-" * 5000 + "1)</function_calls>",
        "<function_calls>" + " " * LONGEST + "f()</function_calls>",
        "<function_calls>f(a='\0')</function_calls>",
    ],
)
def test_what_cannot_be_read_is_told_and_nothing_else_happens(text: str) -> None:
    with pytest.raises(Unreadable):
        read_calls(text)
