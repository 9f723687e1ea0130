"""Where metrics go."""

from __future__ import annotations

import json
from pathlib import Path

from training.tracking.monitors import JsonLines


def test_a_resumed_run_writes_each_step_once(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    log = JsonLines(file)
    for step in range(5):
        log.log(step, {"x": 0.0})
    log.close()
    resumed = JsonLines(file, first_step=3)
    resumed.log(3, {"x": 1.0})
    resumed.close()
    assert [json.loads(line)["step"] for line in file.read_text().splitlines()] == [0, 1, 2, 3]
