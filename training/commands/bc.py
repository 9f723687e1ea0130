"""`rayward bc`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from configs.bc import BCConfig
from deployments.storage import atomic
from training.commands.options import SetOption, console


def bc(
    config: Annotated[str, typer.Option("--config", help="YAML file, or the name of a shipped one")],
    overrides: SetOption = [],  # noqa: B006 - typer copies it
) -> None:
    """Train a robot policy on demonstrations, write its checkpoint folder, and try it out in closed loop."""
    settings = BCConfig.load(config, overrides)
    from training.imitation.chunks import clone

    def progress(step: int, steps: int, loss: float) -> None:
        console.print(f"step {step}/{steps}, loss {loss:.4f}", highlight=False)

    result = clone(settings, progress)
    atomic.write_text(settings.output / "evaluation.json", json.dumps(asdict(result), indent=2))
    episodes = settings.evaluation.episodes
    console.print(f"success on {episodes} held-out tables, with its 95 % interval:", highlight=False)
    console.print(f"  untrained {result.untrained}", markup=False, highlight=False)
    console.print(f"  trained   {result.trained}", markup=False, highlight=False)
    console.print(f"the checkpoint is in {settings.output}", markup=False, highlight=False)
