"""The bars of long commands."""

from __future__ import annotations

import io

from rich.console import Console

from training.commands.progress import bars, on_step


def test_a_resumed_run_s_bar_begins_at_the_steps_that_are_done() -> None:
    """It stood at 0 until the first step was done, as if the run had begun again."""
    with bars(Console(file=io.StringIO())) as progress:
        advance = on_step(progress, "GRPO", steps=100, done=50)
        assert (progress.tasks[0].completed, progress.tasks[0].total) == (50, 100)

        advance(50, {"rollout/success": 0.5})

    assert progress.tasks[0].completed == 51
    assert progress.tasks[0].description == "GRPO, success in rollouts 0.50"
