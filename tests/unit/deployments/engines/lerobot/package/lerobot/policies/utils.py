"""Queues of observations."""

from __future__ import annotations

from collections import deque
from typing import Any


def populate_queues(queues: dict[str, deque[Any]], batch: dict[str, Any]) -> None:
    for name in queues.keys() & batch.keys():
        queues[name].append(batch[name])
        while len(queues[name]) < (queues[name].maxlen or 0):
            queues[name].append(batch[name])
