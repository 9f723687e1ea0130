"""The policy that a run starts from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from configs.base import ConfigError
from configs.training import TrainConfig
from deployments.storage import runs
from deployments.storage.models import context_error, model_folder_error
from training.imitation import tiny


def start_model(config: TrainConfig, run: runs.RunFolder, report: Any = None) -> Path:
    """The policy that the run starts from: built or given, then warm-started if configured. Raises ConfigError."""
    if config.model.source == "tiny":
        model = tiny.build(config.model.tiny, config.env, config.seed, run.path / "models" / "init")
    else:
        source, longest = config.model.source, config.serving.engine.max_model_len
        problem = model_folder_error(source) or context_error(source, longest)
        if problem:
            raise ConfigError(f"model.source: {problem}")
        model = Path(config.model.source)
    if config.warmstart.enabled:
        from training.imitation.sft import warmstart

        warmstart(config, model, run.start_model, report)
        return run.start_model
    return model
