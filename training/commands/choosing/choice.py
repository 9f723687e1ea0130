"""Which configuration an evaluation takes when it names only an environment and models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from configs.base import ConfigError
from configs.sweep import as_overrides
from configs.training import TrainConfig
from envs import registry
from training.commands.choosing import shortcuts
from training.commands.choosing.shortcuts import Shortcuts
from training.commands.options import say, with_checked_environment

if TYPE_CHECKING:
    from deployments.storage.runs import RunFolder

# The learner takes no part: GPUs that it would reserve are left alone, and the replica is where this machine has room.
WITHOUT_LEARNER = {"learner.gpus_per_worker": 0, "serving.engine.device": "auto", "serving.engine.dtype": "auto"}


def configuration_for(env: str, models: Sequence[str], overrides: Sequence[str], episodes: int) -> TrainConfig:
    """The configuration of the run that the first model comes from, if it played this environment; else the one that
    ships for a real model. Raises UserError."""
    name = registry.named(env)
    if not models:
        raise ConfigError("name a model with --model (a folder, a run, or OWNER/MODEL on the hub), or a run with --run")
    more = [*overrides, *([f"evaluation.episodes={episodes}"] if episodes else [])]
    run = _run_of(models[0])
    settings = run.load_config(more) if run is not None else None
    if run is None or settings is None or settings.env.name != name:
        settings = shortcuts.load("", Shortcuts(env=name), [*as_overrides(WITHOUT_LEARNER), *more], say, real=True)
    else:
        say(f"configuration: {run.config}")
    return with_checked_environment(settings)


def _run_of(model: str) -> RunFolder | None:
    """The run that `model` names, by its folder, its id or one of its model folders; None for a model of no run."""
    from deployments.storage import runs

    folder = Path(model).expanduser().resolve()
    for candidate in (folder, folder.parent.parent):
        if (candidate / "models").is_dir() and (candidate / "config.json").is_file():
            return runs.RunFolder(candidate)
    try:
        return runs.find(model)
    except ConfigError:
        return None
