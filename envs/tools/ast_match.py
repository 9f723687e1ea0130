"""Whether calls are what a row asks for, by the leaderboard's rules: its AST check for Python, to the letter.

Source: Berkeley Function-Calling Leaderboard, `bfcl_eval.eval_checker.ast_eval` (Apache-2.0); written anew here, and
compared with it on mutated calls of all its rows. Truth: `[{function: {parameter: [accepted values]}}]`, where "" among
the accepted values means that the parameter may be left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from envs.tools.tool_calls import Call

TYPES: dict[str, type] = {
    "string": str,
    "integer": int,
    "float": float,
    "boolean": bool,
    "array": list,
    "tuple": list,
    "dict": dict,
    "any": str,
}
DROPPED = re.compile(r"[ ,./\-_*^]")
LEFT_OUT = ""

Function = Mapping[str, Any]
Truth = Mapping[str, Mapping[str, Sequence[Any]]]


class Wrong(Exception):
    """Calls that the row does not accept; the message says why."""


def check_calls(category: str, functions: Sequence[Function], truths: Sequence[Truth], calls: Sequence[Call]) -> None:
    """Raises Wrong for calls that are not what a row of a category asks for. Irrelevance and relevance are judged by
    whether there is a call at all, without truths."""
    if "irrelevance" in category:
        if calls:
            raise Wrong("no function fits, and one was called")
        return
    if "relevance" in category:
        if not calls:
            raise Wrong("a function fits, and none was called")
        return
    if len(calls) != len(truths):
        raise Wrong(f"{len(truths)} calls were asked for, {len(calls)} were made")
    left = list(calls)
    for truth in truths:
        (name,) = truth
        function = next(function for function in functions if function["name"] == name)
        del left[_first_match(function, truth[name], left)]


def _first_match(function: Function, accepted: Mapping[str, Sequence[Any]], calls: Sequence[Call]) -> int:
    """The position of the first call that fits: in whatever order several were made."""
    reasons = []
    for index, call in enumerate(calls):
        try:
            _check_call(function, accepted, call)
        except Wrong as wrong:
            reasons.append(str(wrong))
        else:
            return index
    raise Wrong("; ".join(reasons))


def _check_call(function: Function, accepted: Mapping[str, Sequence[Any]], call: Call) -> None:
    if call.name != function["name"]:
        raise Wrong(f"{function['name']} was asked for, {call.name} was called")
    parameters = function["parameters"]["properties"]
    for name in function["parameters"].get("required", ()):
        if name not in call.arguments:
            raise Wrong(f"the required parameter {name} is missing")
    for name, value in call.arguments.items():
        if name not in parameters or name not in accepted:
            raise Wrong(f"there is no parameter {name}, or it has no value in the answer")
        if not _accepts(parameters[name], accepted[name], value):
            raise Wrong(f"{name} is {value!r}, accepted: {list(accepted[name])!r}")
    for name, values in accepted.items():
        if name not in call.arguments and LEFT_OUT not in values:
            raise Wrong(f"the parameter {name} is missing")


def _accepts(parameter: Mapping[str, Any], accepted: Sequence[Any], value: Any) -> bool:
    expected = TYPES[parameter["type"]]
    of_items = TYPES[parameter["items"]["type"]] if parameter["type"] in ("array", "tuple") else None
    if parameter["type"] == "tuple" and isinstance(value, tuple):
        value = list(value)
    if parameter["type"] == "float" and _is_a(value, int):
        value = float(value)
    answered = _type_of(accepted)
    if _is_a(value, expected):
        if of_items is not None and not _items_fit(value, of_items, accepted):
            return False
        # An answer of another type stands for a variable, which is compared as it is.
        variable = answered is not None and answered is not expected
    elif answered is not None and _is_a(value, answered):
        variable = True
    else:
        return False
    if variable:
        return value in accepted
    if expected is dict:
        return any(_same_dictionary(value, each) for each in accepted if each != LEFT_OUT)
    if expected is list and of_items is dict:
        return any(_same_dictionaries(value, each) for each in accepted)
    if expected is str:
        return plain(value) in [plain(each) for each in accepted if isinstance(each, str)]
    if expected is list:
        return _plain_items(value) in [_plain_items(each) for each in accepted if isinstance(each, Iterable)]
    return value in accepted


def _is_a(value: Any, kind: type) -> bool:
    """Exactly: a bool is no integer."""
    return type(value) is kind


def _type_of(accepted: Sequence[Any]) -> type | None:
    return next((type(each) for each in accepted if each != LEFT_OUT), None)


def _items_fit(items: list[Any], expected: type, accepted: Sequence[Any]) -> bool:
    """Whether for one of the accepted lists each item has the expected type, or the one that the list's items have."""

    def fits(each: list[Any]) -> bool:
        answered = _type_of(each)
        return all(_is_a(item, expected) or (answered is not None and _is_a(item, answered)) for item in items)

    return any(not isinstance(each, list) or fits(each) for each in accepted)


def _same_dictionary(value: Any, accepted: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(accepted, Mapping):
        return False
    if not all(isinstance(values, list | str) for values in accepted.values()):
        return False  # in a few rows: the leaderboard's own check accepts nothing there
    if any(key not in accepted or _plain(part) not in _plain_items(accepted[key]) for key, part in value.items()):
        return False
    return all(key in value or LEFT_OUT in values for key, values in accepted.items())


def _same_dictionaries(values: list[Any], accepted: Any) -> bool:
    """In their order. An accepted value that may be left out is as good as an empty list."""
    return len(values) == len(accepted) and all(map(_same_dictionary, values, accepted))


def _plain_items(items: Iterable[Any]) -> list[Any]:
    return [_plain(each) for each in items]


def _plain(value: Any) -> Any:
    return plain(value) if isinstance(value, str) else value


def plain(text: str) -> str:
    """What is compared of a text.

    >>> plain("April 1, 2024") == plain("april 1 2024")
    True
    """
    return DROPPED.sub("", text).lower().replace("'", '"')
