"""What the commands share: their options, the console, and what a user means by a name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from configs.base import ConfigError
from configs.training import TrainConfig

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
KeyFileOption = Annotated[
    Path | None, typer.Option("--key-file", help="file with the API key, where the application requires one")
]


def chosen(config: str, run: str, overrides: Sequence[str], episodes: int = 0) -> tuple[TrainConfig, RunFolder | None]:
    """The configuration of --config, or that of --run with its folder, once its environment could be made.
    Raises UserError."""
    more = [*overrides, *([f"evaluation.episodes={episodes}"] if episodes else [])]
    if run:
        from deployments.storage import runs

        folder = runs.find(run)
        settings = TrainConfig.load(config, more) if config else folder.load_config(more)
        return with_checked_environment(settings), folder
    if config:
        return with_checked_environment(TrainConfig.load(config, more)), None
    raise ConfigError("name a configuration with --config, or a run with --run")


def with_checked_environment(config: TrainConfig) -> TrainConfig:
    """The configuration itself, once its environment could be made and reset. Raises UserError or EnvUsageError."""
    from training.rollouts.environment import check_environment

    check_environment(config, lambda text: console.print(text, soft_wrap=True, markup=False))
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
    found += [models.find(name) for name in given]
    if not found:
        raise ConfigError("name a model folder with --model, or a run with --run")
    models.check_same_architecture(found)
    return found


def find_model(given: str, run: RunFolder | None) -> Path:
    """The model that was named, else the run's newest. Raises ConfigError."""
    from deployments.storage import models

    return models.find(given) if given else find_models([], run)[0]


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
