"""A sweep that was killed or stopped, taken up again from its folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from configs.base import ConfigError
from configs.sweep import SweepConfig
from configs.training import TrainConfig
from deployments.storage import atomic, runs

FILE = "sweep.json"


def keep_sweep(folder: runs.RunFolder, sweep: SweepConfig) -> None:
    """Into the sweep's folder, beside config.json, from which all trials start."""
    atomic.write_text(folder.path / FILE, json.dumps(sweep.dump(), indent=2))


def sweep_to_resume(
    name: str, config: str = "", overrides: Sequence[str] = ()
) -> tuple[SweepConfig, TrainConfig, runs.RunFolder]:
    """The sweep of a folder (or id), the configuration that its trials start from, and the folder. `config` and
    `overrides` may be given again. Raises ConfigError for a folder that is no sweep's, and where they would change it:
    its trials could not be compared."""
    folder = runs.find(name)
    file = folder.path / FILE
    if not file.is_file():
        raise ConfigError(
            f"{folder.path} is not the folder of a sweep: it has no {FILE}. Give the one that `rayward sweep` named; a "
            "run is resumed by `rayward train --resume`"
        )
    stored = json.loads(file.read_text())
    sweep, base = SweepConfig.parse(stored, source=str(file)), folder.load_config()
    given = SweepConfig.load(config, overrides) if config else SweepConfig.parse(stored, overrides, source=str(file))
    _check_equal(folder, sweep.dump(), given.dump())
    if config:
        _check_equal(folder, base.dump(), given.resolve().dump())
    return sweep, base, folder


def _check_equal(folder: runs.RunFolder, before: dict[str, Any], now: dict[str, Any], path: str = "") -> None:
    for key in {**before, **now}:
        old, new = before.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            _check_equal(folder, old, new, f"{path}{key}.")
        elif old != new:
            raise ConfigError(
                f"{path}{key} is {old!r} in {folder.path} and cannot become {new!r}: the trials of a sweep are "
                "compared with each other. Resume it with --resume alone, or start a new sweep"
            )
