"""What Weights & Biases wrote offline: its transaction logs, in LevelDB's log format after a header of 7 bytes."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HEADER, BLOCK = 7, 32768
WHOLE, FIRST = 1, 2  # kinds of pieces; the others go on with a record or end it


def histories(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The logged rows by W&B run, in the order in which the runs were begun. Continued runs are one."""
    import wandb
    from wandb.proto.wandb_internal_pb2 import Record

    wandb.teardown()  # its service writes on after a run's finish()
    found: dict[str, list[dict[str, Any]]] = {}
    for file in sorted(folder.glob("wandb/offline-run-*/*.wandb"), key=lambda file: file.stat().st_ctime_ns):
        rows = found.setdefault(file.stem.removeprefix("run-"), [])
        for content in _records(file.read_bytes()):
            record = Record.FromString(content)
            if record.WhichOneof("record_type") == "history":
                items = {(item.key or ".".join(item.nested_key)): item.value_json for item in record.history.item}
                rows.append({key: json.loads(value) for key, value in items.items()})
    return found


def _records(data: bytes) -> Iterator[bytes]:
    at, record = HEADER, b""
    while at + HEADER <= len(data):
        if BLOCK - at % BLOCK < HEADER:  # too short for a piece: padding
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        piece = data[at + HEADER : at + HEADER + length]
        at += HEADER + length
        if kind in (WHOLE, FIRST):
            record = b""
        record += piece
        if kind in (WHOLE, 4):
            yield record
