"""Model text to an action. Pure; a bad answer is data, never an exception."""

from __future__ import annotations

import re
from functools import lru_cache


@lru_cache(maxsize=64)
def _tag(tag: str) -> re.Pattern[str]:
    name = re.escape(tag)
    return re.compile(rf"<{name}>(.*?)(?:</{name}>|<|$)", re.IGNORECASE | re.DOTALL)


def tag_content(text: str, tag: str) -> str | None:
    """The last `<tag>...</tag>` of the text, trimmed and lower-cased; an unclosed tag counts. None without one.

    >>> tag_content("I go <action> Up </action>", "action")
    'up'
    >>> tag_content("<action>left", "action")
    'left'
    """
    matches = _tag(tag).findall(text)
    return matches[-1].strip().lower() if matches else None


def raw_tag_content(text: str, tag: str) -> str | None:
    """Like `tag_content`, but upper and lower case stay as they were written."""
    matches = _tag(tag).findall(text)
    return matches[-1].strip() if matches else None


def tagged_int(text: str, tag: str) -> int | None:
    """The integer in the last closed tag, None when there is none.

    >>> tagged_int("<move>5</move>", "move")
    5
    >>> tagged_int("<move>5", "move") is None
    True
    """
    closed = re.findall(rf"<{re.escape(tag)}>([^<]*)</{re.escape(tag)}>", text, re.IGNORECASE)
    content = closed[-1].strip() if closed else None
    if content is None or not re.fullmatch(r"[+-]?[0-9]{1,9}", content):
        return None
    return int(content)
