"""What may change when a run is resumed: a changed setting is applied and kept, or refused with the reason."""

from __future__ import annotations

import json
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


def check_changes(run: RunFolder, config: TrainConfig) -> None:
    """Raises ConfigError for a setting that a resume cannot change."""
    before, after = _stored(run), config.dump()
    for key, reason in FIXED.items():
        old, new = _at(before, key), _at(after, key)
        if old != new:
            raise ConfigError(
                f"{key} cannot change from {old!r} to {new!r} in a resumed run: {reason}. Leave it, or start a new run "
                "with --config"
            )


def keep_changes(run: RunFolder, config: TrainConfig) -> None:
    """Makes `config` the run's own, so that the next resume and every command that reads the run know it."""
    if config.dump() != _stored(run):
        atomic.write_text(run.config, json.dumps(config.dump(), indent=2))


def _stored(run: RunFolder) -> dict[str, Any]:
    """As it was written: not validated, since what was changed may be just what makes it valid."""
    stored: dict[str, Any] = json.loads(run.config.read_text())
    return stored


def _at(config: dict[str, Any], key: str) -> Any:
    value: Any = config
    for name in key.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value
