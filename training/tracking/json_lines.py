"""metrics.jsonl: one strict JSON object per step. A file whose writer was killed can still be read and continued."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path

from deployments.storage import atomic

logger = logging.getLogger("rayward")

Row = dict[str, float | None]  # "step", and the metrics; None for a value that was not finite


class JsonLines:
    """Appends to metrics.jsonl, so that a resumed run continues in the same file."""

    def __init__(self, path: Path, first_step: int = 0) -> None:
        """Steps from `first_step` on are played again: their lines are dropped, and so are broken ones."""
        self.replayed = 0  # how many lines were dropped because their steps are played again
        if path.exists():
            rows = read_rows(path)
            kept = [row for row in rows if (row["step"] or 0) < first_step]
            self.replayed = len(rows) - len(kept)
            atomic.write_text(path, "".join(json.dumps(row, allow_nan=False) + "\n" for row in kept))
        self._file = path.open("a", buffering=1)
        self._named: set[str] = set()

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """A value that is not finite is written as null, and its name is told once: JSON has no NaN."""
        row: Row = {"step": step}
        for name, value in metrics.items():
            number = float(value)
            row[name] = number if math.isfinite(number) else None
            if row[name] is None and name not in self._named:
                self._named.add(name)
                logger.warning("metric %s is %s in step %d: metrics.jsonl holds null for it", name, number, step)
        self._file.write(json.dumps(row, allow_nan=False) + "\n")

    def close(self) -> None:
        self._file.close()


def read_rows(path: Path) -> list[Row]:
    """The rows of a metrics.jsonl. A line that is no row (the last one of a killed writer, or of a full disk) is left
    out with a warning."""
    rows: list[Row] = []
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
        row = _row(line)
        if row is None:
            logger.warning("%s: line %d is no whole JSON object with a step, and is dropped: %.60r", path, number, line)
        else:
            rows.append(row)
    return rows


def _row(line: str) -> Row | None:
    try:
        row = json.loads(line, parse_constant=lambda name: None)  # NaN of an older file
    except ValueError:
        return None
    return row if isinstance(row, dict) and isinstance(row.get("step"), int) else None
