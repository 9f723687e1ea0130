"""Progress bars of the long commands."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


def bars(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:<42}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
    )


def on_step(progress: Progress, name: str, steps: int, done: int = 0) -> Callable[[int, dict[str, float]], None]:
    """A bar over a run of `steps` steps, of which a resumed run has `done` already; what is returned is called with
    (step, metrics) of each finished one, and steps count from 0."""
    bar = progress.add_task(name, total=steps, completed=done)

    def advance(step: int, metrics: dict[str, float]) -> None:
        description = f"{name}, success in rollouts {metrics['rollout/success']:.2f}"
        progress.update(bar, completed=step + 1, description=description)

    return advance
