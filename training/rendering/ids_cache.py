"""Rendered chats that are likely to be asked for again, bounded in bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

# (role, content, height and width of each image) of each message
Key = tuple[tuple[str, str, tuple[tuple[int, int], ...]], ...]
BYTES_AN_ID = 8  # a pointer; most ids are small integers that many tuples share


class IdsCache:
    """`render(key)` with its last results kept, the least recently used ones dropped above `max_bytes`. The siblings of
    a group ask for the same first prompt; a long chat is asked for once, and must not fill the memory."""

    def __init__(self, render: Callable[[Key], tuple[int, ...]], max_bytes: int) -> None:
        self._render, self._max_bytes = render, max_bytes
        self._kept: OrderedDict[Key, tuple[int, ...]] = OrderedDict()
        self.bytes = 0

    def __call__(self, key: Key) -> tuple[int, ...]:
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        ids = self._kept[key] = self._render(key)
        self.bytes += _size(key, ids)
        while self.bytes > self._max_bytes:
            self.bytes -= _size(*self._kept.popitem(last=False))
        return ids


def _size(key: Key, ids: tuple[int, ...]) -> int:
    return BYTES_AN_ID * len(ids) + sum(len(role) + len(content) for role, content, _ in key)
