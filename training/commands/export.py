"""`rayward export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from configs.base import ConfigError
from training.commands.options import SetOption, say


def export(
    output: Annotated[Path, typer.Option("--output", help="new folder for the dataset")],
    run: Annotated[str, typer.Option("--run", help="folder or id of a run: its recorded episodes")] = "",
    config: Annotated[
        str, typer.Option("--config", help="a file of configs/bc: episodes of the robot's scripted expert")
    ] = "",
    overrides: SetOption = [],  # noqa: B006 - typer copies it
    success_only: Annotated[
        bool, typer.Option("--success-only", help="of a run: only episodes that succeeded")
    ] = False,
) -> None:
    """Write a run's episodes as a Hugging Face dataset, or a robot's demonstrations as a LeRobotDataset."""
    if bool(run) == bool(config):
        raise ConfigError(
            "name a run with --run, or a robot's configuration (configs/bc/) with --config; one of the two"
        )
    if run:
        if overrides:
            raise ConfigError("--set changes a robot's configuration (--config); a run's episodes are as they are")
        _export_run(run, output, success_only)
        return
    if success_only:
        raise ConfigError("--success-only chooses among a run's episodes (--run); leave it out with --config")
    _export_robot(config, overrides, output)


def _export_run(run: str, output: Path, success_only: bool) -> None:
    from deployments.storage import runs
    from training.export.conversations import export_run

    counts = export_run(runs.find(run), output, success_only)
    for reason, count in counts.items():
        say(f"{count} episodes {'written' if reason == 'written' else f'left out: {reason}'}")
    say(f"{output} is a dataset for datasets.load_dataset({str(output)!r})")


def _export_robot(config: str, overrides: list[str], output: Path) -> None:
    from configs.bc import BCConfig
    from training.export.lerobot import export_episodes
    from training.export.robots import CONTROL_HZ, NAMES, expert_episodes

    settings = BCConfig.load(config, overrides)
    kind = settings.table.kind
    written = export_episodes(expert_episodes(settings), output, CONTROL_HZ[kind], f"rayward_{kind}", NAMES[kind])
    say(", ".join(f"{count} {name}" for name, count in written.items()))
    say(f"{output} is a dataset for LeRobotDataset({kind!r}, root={str(output)!r})")
