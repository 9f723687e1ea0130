"""Function calls in a model's text. Pure; text without a readable call is data, never an exception."""

from __future__ import annotations

import ast
import json
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

LONGEST = 20_000  # characters: a parser's time and stack are bounded
LARGEST_EXPONENT = 64
MOST_BITS = 1024  # of an integer: Python refuses to write longer ones down, and to make floats of them
DEEPEST = 32  # levels of a value
HERMES = re.compile(r"<tool_call>(.*?)(?:</tool_call>|$)", re.DOTALL)
BLOCK = re.compile(r"<function_calls>(.*?)(?:</function_calls>|$)", re.DOTALL)
ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}


@dataclass(frozen=True, slots=True)
class Call:
    """`name` may have dots. `arguments`: of JSON's types, and tuples."""

    name: str
    arguments: dict[str, Any]


class Unreadable(ValueError):
    """Text that is no list of calls; the message says where it goes wrong."""


def read_calls(text: str) -> list[Call]:
    """The calls of an answer: hermes' `<tool_call>{"name": "f", "arguments": {}}</tool_call>`, as chat templates write
    native tool calls, else those of the last `<function_calls>[f(a=1), g(b="x")]</function_calls>`. An unclosed tag
    counts. Raises Unreadable where there is neither, or one of the calls cannot be read.

    >>> read_calls('<function_calls>[area(sides=[2, 3.5], unit="m")]</function_calls>')
    [Call(name='area', arguments={'sides': [2, 3.5], 'unit': 'm'})]
    """
    if len(text) > LONGEST:
        raise Unreadable(f"the answer has {len(text)} characters; at most {LONGEST} are read")
    if native := HERMES.findall(text):
        return [_bounded(_from_json(block)) for block in native]
    if blocks := BLOCK.findall(text):
        return [_bounded(call) for call in from_python(blocks[-1])]
    raise Unreadable("there is neither <tool_call> nor <function_calls> in the answer")


def from_python(text: str) -> list[Call]:
    """A call, or a list of calls, written in Python with keyword arguments; positional ones are left out, as the
    leaderboard does. Nothing is executed. Raises Unreadable."""
    try:
        body = ast.parse(text.strip().strip("'"), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise Unreadable(f"that is not Python: {error}") from error
    calls = body.elts if isinstance(body, ast.List | ast.Tuple) else [body]
    try:
        return [_call(node) for node in calls]
    except Unreadable:
        raise
    except (TypeError, ValueError, ArithmeticError, RecursionError) as error:
        raise Unreadable(f"a value cannot be read: {error}") from error


def _bounded(call: Call) -> Call:
    """The call, when its values can be worked with. Raises Unreadable."""
    _check_size(call.arguments, DEEPEST)
    return call


def _check_size(value: Any, levels: int) -> None:
    if levels == 0:
        raise Unreadable(f"a value has more than {DEEPEST} levels")
    if isinstance(value, int) and value.bit_length() > MOST_BITS:
        raise Unreadable(f"an integer has more than {MOST_BITS} bits")
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list | tuple):
        for each in value:
            _check_size(each, levels - 1)


def _from_json(block: str) -> Call:
    try:
        written = json.loads(block)
        name, arguments = written["name"], written.get("arguments", {})
        arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise Unreadable(f"<tool_call> needs an object with name and arguments: {error!r}") from error
    if not isinstance(name, str) or not isinstance(arguments, dict):
        raise Unreadable("<tool_call> needs a name that is text, and arguments that are an object")
    return Call(name, arguments)


def _call(node: ast.expr) -> Call:
    if not isinstance(node, ast.Call):
        raise Unreadable(f"{ast.unparse(node)[:40]!r} is no call")
    arguments = {}
    for keyword in node.keywords:
        if keyword.arg is None:
            raise Unreadable("** is no argument")
        arguments[keyword.arg] = _value(keyword.value)
    return Call(_dotted(node.func), arguments)


def _dotted(node: ast.expr) -> str:
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        raise Unreadable(f"{ast.unparse(node)[:40]!r} is no function's name")
    return ".".join([node.id, *reversed(parts)])


def _value(node: ast.expr) -> Any:
    """What the leaderboard takes a written value for: a name stands for itself, as text."""
    match node:
        case ast.Constant():
            return "..." if node.value is Ellipsis else node.value
        case ast.Name():
            return node.id
        case ast.List():
            return [_value(each) for each in node.elts]
        case ast.Tuple():
            return tuple(_value(each) for each in node.elts)
        case ast.Dict():
            return _dictionary(node)
        case ast.UnaryOp() | ast.BinOp():
            return _number(node)
        case ast.Call():
            inner = _call(node)
            return {inner.name: inner.arguments} if node.keywords else ast.unparse(node)
        case ast.Subscript():
            return ast.unparse(node)
    raise Unreadable(f"{ast.unparse(node)[:40]!r} is no value")


def _dictionary(node: ast.Dict) -> dict[Any, Any]:
    found = {}
    for key, value in zip(node.keys, node.values, strict=True):
        if key is None:
            raise Unreadable("** is no entry of a dictionary")
        found[_value(key)] = _value(value)
    return found


def _number(node: ast.expr) -> int | float:
    """Arithmetic of written numbers, such as -1 and 5 / 100."""
    match node:
        case ast.Constant(value=bool()):
            pass
        case ast.Constant(value=int() | float() as number):
            return number
        case ast.UnaryOp(op=ast.USub()):
            return -_number(node.operand)
        case ast.UnaryOp(op=ast.UAdd()):
            return _number(node.operand)
        case ast.BinOp() if type(node.op) in ARITHMETIC:
            left, right = _number(node.left), _number(node.right)
            if isinstance(node.op, ast.Pow) and not (abs(left) <= 1e9 and abs(right) <= LARGEST_EXPONENT):
                raise Unreadable(f"{ast.unparse(node)[:40]!r} is too large")
            result = ARITHMETIC[type(node.op)](left, right)
            if isinstance(result, int | float):
                return result
    raise Unreadable(f"{ast.unparse(node)[:40]!r} is no number")
