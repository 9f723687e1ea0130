"""An image as nested lists, taken out of a large JSON body before the rest is parsed: as Python objects its hundred
thousand numbers cost five times as much. Pure."""

from __future__ import annotations

import re
import uuid
from typing import Any

import numpy as np
import orjson

from deployments.protocol.act import Frame
from deployments.transports.http.requests import parse

# No string of JSON holds this: within one the quotes are escaped.
_KEY = re.compile(rb'"image"\s*:\s*(?=\[\s*\[\s*\[)')
_END = re.compile(rb"\]\s*\]\s*\]")
_NUMBERS = b"0123456789 \t\r\n"


def parsed_with_image(body: bytes) -> dict[str, Any]:
    """What `parse` gives, but with `image` a Frame where it is a nested list [H][W][3] of integers in 0..255 at the top
    of the body. Anything else is left to `parse`, and to whoever says what is wrong with it. Raises PolicyError."""
    key = _KEY.search(body)
    end = _END.search(body, key.end()) if key else None
    frame = _frame(body[key.end() : end.end()]) if key and end else None
    if key is None or end is None or frame is None:
        return parse(body)
    mark = uuid.uuid4().hex
    payload = parse(b'%b"%b"%b' % (body[: key.end()], mark.encode(), body[end.end() :]))
    if payload.get("image") != mark:  # it stood deeper, or twice
        return parse(body)
    return payload | {"image": frame}


def _frame(text: bytes) -> Frame | None:
    """None for what is not [H][W][3] of integers in 0..255."""
    brackets = text.translate(None, _NUMBERS)
    width = brackets.partition(b"]]")[0].count(b"[") - 2  # but the brackets of the image and of its first row
    height = brackets.count(b"[") // (width + 1) if width > 0 else 0
    if not height or brackets != _brackets(height, width):
        return None
    try:
        numbers = bytes(orjson.loads(b"[%b]" % text.translate(None, b"[]")))
    except (orjson.JSONDecodeError, ValueError):
        return None
    return np.frombuffer(numbers, np.uint8).reshape(height, width, 3)


def _brackets(height: int, width: int) -> bytes:
    """Such an image without its numbers."""
    row = b"[%b]" % b",".join([b"[,,]"] * width)
    return b"[%b]" % b",".join([row] * height)
