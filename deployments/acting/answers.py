"""The JSON object in what a language model said: bare, in a fence, after prose, and with its usual slips."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator

_FENCE = re.compile(r"```[A-Za-z0-9]*[ \t]*\n?(.*?)(?:```|\Z)", re.DOTALL)
_STRING = r'("(?:\\.|[^"\\])*")'
_STRING_OR_LAST_COMMA = re.compile(_STRING + r"|,(?=\s*[}\]])", re.DOTALL)
_STRING_OR_WORD = re.compile(_STRING + r"|\b(None|True|False)\b", re.DOTALL)
_JSON_WORDS = {"None": "null", "True": "true", "False": "false"}
_MOST_STARTS = 16  # places at which an object may begin that are tried; each costs a pass over the text


class UnreadableAnswer(ValueError):
    """What the model said cannot be understood; the message says what was expected."""


def object_in(text: str, expected: Collection[str]) -> dict[str, object]:
    """The JSON object of `text` that has at least one of the `expected` keys; of several fenced ones the last.

    Trailing commas, single quotes (with apostrophes inside) and Python's None, True and False are understood.
    Raises UnreadableAnswer.

    >>> object_in('First I move: ```json\\n{"x": 1,}\\n```', ["x"])
    {'x': 1}
    """
    for candidate in _candidates(text):
        for mend in _MENDS:
            value = _parsed(mend(candidate))
            if isinstance(value, dict) and any(key in value for key in expected):
                return value
    raise UnreadableAnswer(f"the answer holds no JSON object with any of the keys {', '.join(expected)}")


def _candidates(text: str) -> Iterator[str]:
    """Pieces of the text that may be the object, the likeliest first."""
    yield from reversed(_FENCE.findall(text))
    end = text.rfind("}") + 1
    starts = [found.start() for found in re.finditer(r"\{", text)]
    for start in (*starts[:_MOST_STARTS], *starts[_MOST_STARTS:][-_MOST_STARTS:]):
        if start < end:
            yield text[start:end]
            yield from _complete_object(text, start)


def _complete_object(text: str, start: int) -> Iterator[str]:
    """The shortest piece from `start` that is valid JSON, where more text with braces follows it."""
    try:
        _, end = json.JSONDecoder(strict=False).raw_decode(text, start)
    except (ValueError, RecursionError):
        return
    yield text[start:end]


def _parsed(text: str) -> object:
    """None where the text is no JSON. Line breaks inside strings are allowed: models write them."""
    try:
        return json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return None


def _as_it_is(text: str) -> str:
    return text


def _without_slips(text: str) -> str:
    """Outside strings: no comma before a closing bracket, and JSON's words instead of Python's."""
    text = _STRING_OR_WORD.sub(lambda found: found[1] or _JSON_WORDS[found[2]], text)
    return _STRING_OR_LAST_COMMA.sub(lambda found: found[1] or "", text)


def _in_double_quotes(text: str) -> str:
    """Single quotes that begin or end a string become double ones. A quote begins a string after one of `{[,:`, and
    ends it before one of `,:]}`; any other is an apostrophe."""
    pieces: list[str] = []
    inside = False
    for place, sign in enumerate(text):
        if sign == '"':
            pieces.append('\\"' if inside else sign)
        elif sign == "'" and not inside and text[:place].rstrip()[-1:] in tuple("{[,:"):
            pieces.append('"')
            inside = True
        elif sign == "'" and inside and text[place + 1 :].lstrip()[:1] in tuple(",:]}"):
            pieces.append('"')
            inside = False
        else:
            pieces.append(sign)
    return _without_slips("".join(pieces))


_MENDS: tuple[Callable[[str], str], ...] = (_as_it_is, _without_slips, _in_double_quotes)
