"""The leaderboard's rules: for each a call that passes and one that does not."""

from __future__ import annotations

from typing import Any

import pytest

from envs.tools.ast_match import Wrong, check_calls
from envs.tools.tool_calls import Call


def function(name: str, required: list[str], **parameters: Any) -> dict[str, Any]:
    return {"name": name, "parameters": {"type": "dict", "properties": parameters, "required": required}}


def of(kind: str, items: str | None = None) -> dict[str, Any]:
    return {"type": kind} | ({"items": {"type": items}} if items else {})


def accepts(parameter: dict[str, Any], accepted: list[Any], value: Any) -> bool:
    """Whether the only parameter of a simple call takes a value."""
    return passes("simple", [function("f", ["a"], a=parameter)], [{"f": {"a": accepted}}], Call("f", {"a": value}))


def passes(category: str, functions: list[Any], truths: list[Any], *calls: Call) -> bool:
    try:
        check_calls(category, functions, truths, calls)
    except Wrong:
        return False
    return True


@pytest.mark.parametrize(
    ("parameter", "accepted", "right", "wrong"),
    [
        # exact types; int is accepted for float, and nothing else for anything
        (of("integer"), [3], 3, 3.0),
        (of("integer"), [1], 1, True),
        (of("integer"), [3], 3, "3"),
        (of("float"), [3.0], 3, "3.0"),
        (of("float"), [2.5], 2.5, 2.6),
        (of("boolean"), [True], True, 1),
        (of("string"), ["a"], "a", ["a"]),
        (of("any"), ["a"], "A", "b"),
        # text without ` ,./-_*^`, in lower case, ' as "
        (of("string"), ["April 1, 2024"], "april 1 2024", "april 2 2024"),
        (of("string"), ["a-b/c_d.e*f^g"], "ABCDEFG", "abcdefgh"),
        (of("string"), ["'x'"], '"X"', "x"),
        (of("string"), ["New York", "NYC"], "nyc", "ny"),
        # lists element by element, in their order; a tuple is a list where a tuple is asked for
        (of("array", "string"), [["A b", "c"]], ["ab", "C"], ["c", "ab"]),
        (of("array", "integer"), [[1, 2]], [1, 2], [1, 2.0]),
        (of("array", "float"), [[1.5, 2.0]], [1.5, 2.0], [1.5, 2]),
        (of("array", "integer"), [[1], [2]], [2], [1, 2]),
        (of("tuple", "integer"), [[1, 2]], (1, 2), (2, 1)),
        (of("array", "integer"), [[1, 2]], [1, 2], (1, 2)),
        # dictionaries key by key
        (of("dict"), [{"x": [1], "y": ["A", ""]}], {"x": 1}, {"y": "a"}),
        (of("dict"), [{"x": [1], "y": ["A", ""]}], {"x": 1, "y": "a"}, {"x": 1, "z": 2}),
        (of("dict"), [{"x": ["New York"]}], {"x": "new york"}, {"x": "paris"}),
        (of("array", "dict"), [[{"x": [1]}, {"x": [2]}]], [{"x": 1}, {"x": 2}], [{"x": 2}, {"x": 1}]),
        (of("array", "dict"), [[{"x": [1]}]], [{"x": 1}], [{"x": 1}, {"x": 1}]),
        # a variable, written as text where the type is another one, is compared as it is
        (of("integer"), ["count"], "count", "Count"),
    ],
)
def test_values(parameter: dict[str, Any], accepted: list[Any], right: Any, wrong: Any) -> None:
    assert accepts(parameter, accepted, right)
    assert not accepts(parameter, accepted, wrong)


AREA = function("area", ["base"], base=of("integer"), height=of("integer"), unit=of("string"))
TRUTH = {"area": {"base": [2], "height": [3], "unit": ["m", ""]}}


@pytest.mark.parametrize(
    ("call", "fits"),
    [
        (Call("area", {"base": 2, "height": 3}), True),
        (Call("area", {"base": 2, "height": 3, "unit": "M"}), True),
        (Call("Area", {"base": 2, "height": 3}), False),
        (Call("area", {"height": 3}), False),  # required
        (Call("area", {"base": 2}), False),  # not required, but no answer leaves it out
        (Call("area", {"base": 2, "height": 3, "depth": 1}), False),  # unknown
    ],
)
def test_names_and_parameters(call: Call, fits: bool) -> None:
    assert passes("simple", [AREA], [TRUTH], call) is fits


def test_a_parameter_that_no_answer_gives_is_too_much() -> None:
    assert passes("simple", [AREA], [{"area": {"base": [2]}}], Call("area", {"base": 2}))
    assert not passes("simple", [AREA], [{"area": {"base": [2]}}], Call("area", {"base": 2, "unit": "m"}))


def test_simple_is_exactly_one_call() -> None:
    right = Call("area", {"base": 2, "height": 3})
    assert passes("simple", [AREA], [TRUTH], right)
    assert not passes("simple", [AREA], [TRUTH], right, right)
    assert not passes("simple", [AREA], [TRUTH])


def test_multiple_is_one_call_of_the_right_function() -> None:
    other = function("volume", ["base"], base=of("integer"))
    assert passes("multiple", [other, AREA], [TRUTH], Call("area", {"base": 2, "height": 3}))
    assert not passes("multiple", [other, AREA], [TRUTH], Call("volume", {"base": 2}))


def test_parallel_calls_match_in_any_order_and_each_once() -> None:
    truths = [{"area": {"base": [1], "height": [1]}}, {"area": {"base": [2], "height": [1]}}]
    first, second = Call("area", {"base": 1, "height": 1}), Call("area", {"base": 2, "height": 1})
    assert passes("parallel", [AREA], truths, first, second)
    assert passes("parallel", [AREA], truths, second, first)
    assert not passes("parallel", [AREA], truths, first, first)
    assert not passes("parallel", [AREA], truths, first)
    twice = [{"area": {"base": [1], "height": [1]}}] * 2
    assert passes("parallel", [AREA], twice, first, first)
    assert not passes("parallel", [AREA], twice, Call("area", {"base": True, "height": 1}), first), "True is no 1"
    assert not passes("parallel", [AREA], truths, first, second, second)


def test_irrelevance_passes_without_a_call_and_relevance_with_one() -> None:
    call = Call("area", {})
    assert passes("live_irrelevance", [AREA], [])
    assert not passes("irrelevance", [AREA], [], call)
    assert passes("live_relevance", [AREA], [], call)
    assert not passes("live_relevance", [AREA], [])


def test_the_reason_says_what_was_accepted() -> None:
    with pytest.raises(Wrong, match=r"height is 4, accepted: \[3\]"):
        check_calls("simple", [AREA], [TRUTH], [Call("area", {"base": 2, "height": 4})])
