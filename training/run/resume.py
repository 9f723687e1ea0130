"""What may change when a run is resumed: a changed setting is applied and kept, or refused with the reason."""

from __future__ import annotations

import json
from functools import reduce
from typing import Any

from configs.base import ConfigError
from configs.training import TrainConfig
from deployments.storage import atomic
from deployments.storage.runs import RunFolder

_PARTS = "a checkpoint holds one part for each learner process as they were"
_BEGUN = "the run has begun with it, and its checkpoints go on from there"
_PLACE = "the run stays where it is"
# Settings that a resume cannot apply -> why. All others are read again when a run starts.
FIXED = {
    "model.source": _BEGUN,
    "model.tiny": _BEGUN,
    "warmstart": _BEGUN,
    "seed": _BEGUN,
    "learner.workers": _PARTS,
    "learner.sharding": _PARTS,
    "learner.deepspeed_stage": _PARTS,
    "name": _PLACE,
    "experimenter": _PLACE,
    "experiment": _PLACE,
    "storage_path": _PLACE,
}


def apply_changes(run: RunFolder, config: TrainConfig) -> None:
    """Makes `config` the run's own, so that the next resume and every command that reads the run know it. Raises
    ConfigError for a setting that a resume cannot change."""
    before = run.load_config()
    for key, reason in FIXED.items():
        old, new = _at(before, key), _at(config, key)
        if old != new:
            raise ConfigError(
                f"{key} cannot change from {_shown(old)} to {_shown(new)} in a resumed run: {reason}. Leave it, or "
                "start a new run with --config"
            )
    if config != before:
        atomic.write_text(run.config, json.dumps(config.dump(), indent=2))


def _at(config: TrainConfig, key: str) -> Any:
    return reduce(getattr, key.split("."), config)


def _shown(value: Any) -> str:
    return repr(value.model_dump(mode="json") if hasattr(value, "model_dump") else value)
