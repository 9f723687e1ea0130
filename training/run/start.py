"""The policy that a run starts from."""

from __future__ import annotations

from pathlib import Path

from configs.base import ConfigError
from configs.models import SMOLLM2, TINY
from configs.training import TrainConfig
from deployments.storage import runs
from deployments.storage.models import context_error, model_folder_error
from training.cluster.child import Report, in_own_process
from training.cluster.quiet import quiet_libraries
from training.imitation import smollm2, tiny


def start_model(config: TrainConfig, run: runs.RunFolder, report: Report | None = None) -> Path:
    """The policy that the run starts from: built or given, then warm-started if configured. Raises ConfigError, and
    UnknownArchitecture for a given model that the learner cannot train.

    What is made is made in a process of its own: PyTorch and the trainer's memory are gone when the run begins.
    `report(step, steps, loss)` is called for each step of the warm start.
    """
    if config.model.source == SMOLLM2:
        in_own_process(_unpack, config.storage_path)
    given = None if config.model.source == TINY else _given(config)
    if given is not None:
        in_own_process(_check, given)
    if given is not None and not config.warmstart.enabled:
        return given
    made: Path = in_own_process(_make, config, run, given, report=report)
    return made


def initial_model(config: TrainConfig, run: runs.RunFolder) -> Path:
    """Where the model of `model.source` lies, which a warm start begins with."""
    if config.model.source == TINY:
        return run.path / "models" / "init"
    if config.model.source == SMOLLM2:
        return smollm2.folder_in(config.storage_path)
    return Path(config.model.source)


def _given(config: TrainConfig) -> Path:
    source = config.model.source
    if source == SMOLLM2:
        source = str(smollm2.folder_in(config.storage_path))
    problem = model_folder_error(source)
    if problem is None and config.serving.connect is None:  # else the engine is the one that is joined
        problem = context_error(source, config.serving.engine.max_model_len)
    if problem:
        raise ConfigError(f"model.source: {problem}")
    return Path(source)


def _unpack(storage_path: str, report: Report) -> None:
    quiet_libraries()
    smollm2.made(storage_path)


def _check(model: Path, report: Report) -> None:
    quiet_libraries()
    from training.learner.architecture import check_folder

    check_folder(model)


def _make(config: TrainConfig, run: runs.RunFolder, given: Path | None, report: Report) -> Path:
    quiet_libraries()
    model = given or tiny.build(config.model.tiny, config.env, config.seed, initial_model(config, run))
    if not config.warmstart.enabled:
        return model
    from training.imitation.sft import warmstart

    warmstart(config, model, run.start_model, report)
    return run.start_model
