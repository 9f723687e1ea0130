"""A warm start from demonstrations."""

from __future__ import annotations

import math
from pathlib import Path

from configs.training import TrainConfig
from training.imitation.sft import warmstart


def test_a_warm_start_shorter_than_its_logging_interval_tells_its_loss(policy_folder: Path, tmp_path: Path) -> None:
    config = TrainConfig.parse(
        {
            "env": {"name": "tictactoe", "system_prompt": ""},
            "warmstart": {"episodes": 20, "steps": 6, "batch_size": 4, "warmup_steps": 1},
        }
    )
    told: list[tuple[int, int, float]] = []

    loss = warmstart(config, policy_folder, tmp_path / "warm", lambda *progress: told.append(progress))

    assert math.isfinite(loss)
    assert [(step, steps) for step, steps, _ in told] == [(step, 6) for step in range(2, 7)]
    assert all(math.isfinite(value) for _, _, value in told)
    assert (tmp_path / "warm" / "tokenizer.json").exists()
    assert loss < told[0][2]  # the first step's loss
