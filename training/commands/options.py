"""What the commands share: their options, the console, and what a user means by a name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from configs.base import ConfigError
from configs.sweep import as_overrides
from configs.training import TrainConfig
from training.commands.choosing import shortcuts
from training.commands.choosing.shortcuts import NO_SHORTCUTS, Shortcuts

if TYPE_CHECKING:
    from deployments.storage.runs import RunFolder
    from training.cluster.memory import Estimate


console = Console()
ConfigOption = Annotated[str, typer.Option("--config", help="YAML file, or the name of a shipped one")]
RunOption = Annotated[str, typer.Option("--run", help="folder or id of a run")]
ModelsOption = Annotated[list[str], typer.Option("--model", help="model folder, or a run's folder or id; repeatable")]
ModelOption = Annotated[str, typer.Option("--model", help="model folder, or a run's folder or id")]
HISTORIES = "none, full, scratchpad, optimal_scratchpad; repeatable; default: as configured"
HistoriesOption = Annotated[list[str], typer.Option("--history", help=HISTORIES)]
EpisodesOption = Annotated[int, typer.Option("--episodes", min=0, help="held-out situations; 0: as configured")]
SetOption = Annotated[list[str], typer.Option("--set", help="a.b=value, repeatable")]
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")  # OWNER/MODEL
MODEL_FILES = ["*.json", "*.safetensors", "*.txt", "*.jinja", "*.model"]
KeyFileOption = Annotated[
    Path | None, typer.Option("--key-file", help="file with the API key, where the application requires one")
]


def say(text: str) -> None:
    """A line to the user, as it is."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def chosen(
    config: str, run: str, overrides: Sequence[str], episodes: int = 0, wanted: Shortcuts = NO_SHORTCUTS
) -> tuple[TrainConfig, RunFolder | None]:
    """The configuration of --config or --env, or that of --run with its folder, once its environment could be made.
    Raises UserError."""
    more = [*overrides, *([f"evaluation.episodes={episodes}"] if episodes else [])]
    folder = None
    if run:
        from deployments.storage import runs

        folder = runs.find(run)
    if config or (wanted.env and folder is None):
        return with_checked_environment(shortcuts.load(config, wanted, more, say)), folder
    if folder is None:
        raise ConfigError("name a configuration with --config, an environment with --env, or a run with --run")
    settings = folder.load_config(more)
    if wanted != NO_SHORTCUTS:
        shorter = wanted.settings(settings.dump())
        shortcuts.say_gpus(wanted, shorter, say)
        settings = folder.load_config([*as_overrides(shorter), *more])
    return with_checked_environment(settings), folder


def with_checked_environment(config: TrainConfig) -> TrainConfig:
    """The configuration itself, once its environment could be made and reset. Raises UserError or EnvUsageError."""
    from training.rollouts.environment import check_environment

    check_environment(config, say)
    return config


def check_memory(config: TrainConfig, estimate: Estimate | None = None) -> None:
    """Before the warm start: whether this machine has the memory that the run will need (`estimate`: that the command
    will need, where it is more than one run). Raises ClusterError."""
    from training.cluster import memory, ray_session

    if config.check_memory and ray_session.starts_here():
        memory.check(estimate or memory.of_training(config))


@contextmanager
def peak_memory() -> Iterator[None]:
    """Says at the end how much memory the command took with all that it started."""
    from training.cluster.machine import PeakMemory

    memory = PeakMemory()
    try:
        with memory:
            yield
    finally:
        console.print(str(memory))


def find_models(given: Sequence[str], run: RunFolder | None) -> list[Path]:
    """The run's newest model first, then those that were named. Raises ConfigError."""
    from deployments.storage import models

    found = [models.newest(run)] if run is not None else []
    found += [_found(name) for name in given]
    if not found:
        raise ConfigError("name a model with --model (a folder, a run, or OWNER/MODEL on the hub), or a run with --run")
    models.check_same_architecture(found)
    return found


def find_model(given: str, run: RunFolder | None) -> Path:
    """The model that was named, else the run's newest. Raises ConfigError."""
    return _found(given) if given else find_models([], run)[0]


def _found(name: str) -> Path:
    """The folder of a model that was named by its folder, its run, or as OWNER/MODEL on Hugging Face's hub, from where
    it is downloaded unless it is there already. Raises ConfigError."""
    from deployments.storage import models

    try:
        return models.find(name)
    except ConfigError as missing:
        if HUB_NAME.fullmatch(name) is None or Path(name).exists():
            raise
        from huggingface_hub import snapshot_download

        say(f"taking {name} from Hugging Face's hub")
        try:
            return Path(snapshot_download(name, allow_patterns=MODEL_FILES))
        except OSError as error:  # of every kind that the hub's library knows
            reason = str(error).strip().partition("\n")[0]
            raise ConfigError(f"{missing}. Nor could it be taken from the hub: {reason}") from error


def read_key(file: Path | None) -> str | None:
    """The API key of --key-file. Raises ConfigError."""
    if file is None:
        return None
    try:
        key = file.read_text().strip()
    except OSError as error:
        raise ConfigError(f"--key-file {file} cannot be read: {error.strerror}") from error
    if not key:
        raise ConfigError(f"--key-file {file} is empty")
    return key
