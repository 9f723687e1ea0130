"""Names of environments. Adding one is a file and a line in REGISTRY; packages add theirs by an entry point."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any

from envs.base import Env, EnvSpec, EnvUsageError, check_settings

REGISTRY: dict[str, str] = {
    "tictactoe": "envs.games.tictactoe:TicTacToe",
    "key_door": "envs.games.key_door:KeyDoor",
    "wordle": "envs.games.wordle:Wordle",
    "bfcl": "envs.tools.bfcl:FunctionCalling",
    "cave": "envs.pixels.cave:Cave",
}
ENTRY_POINTS = "rayward.environments"
HELDOUT = {"split": "heldout"}


class UnknownEnvironment(EnvUsageError):
    """No environment of this name; the message lists those that exist."""


def names() -> list[str]:
    return sorted({*REGISTRY, *(point.name for point in entry_points(group=ENTRY_POINTS))})


def load(name: str) -> type[Env]:
    """The class of an environment, imported on first use. Raises UnknownEnvironment."""
    if name in REGISTRY:
        module, _, attribute = REGISTRY[name].partition(":")
        cls: type[Env] = getattr(importlib.import_module(module), attribute)
        return cls
    for point in entry_points(group=ENTRY_POINTS):
        if point.name == name:
            found: type[Env] = point.load()
            return found
    if ":" in name:
        return _imported(name)
    near = difflib.get_close_matches(name, names(), n=1, cutoff=0.4)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise UnknownEnvironment(f"no environment {name!r}.{hint} Environments: {', '.join(names())}")


def _imported(path: str) -> type[Env]:
    """The class at `package.module:Class`, for an environment that is not installed. Raises UnknownEnvironment."""
    module, _, attribute = path.partition(":")
    try:
        cls: type[Env] = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UnknownEnvironment(f"environment {path!r} cannot be imported: {error}") from error
    return cls


def make(name: str, **settings: Any) -> Env:
    """A fresh environment. Raises UnknownEnvironment, or SettingError for a setting it does not take."""
    cls = load(name)
    check_settings(cls, settings)
    return cls(**settings)


def spec(name: str, **settings: Any) -> EnvSpec:
    return make(name, **settings).spec


def evaluation_settings(name: str, settings: Mapping[str, Any], over: Mapping[str, Any] | None) -> dict[str, Any]:
    """Settings of the evaluation: `over` laid over those of training. None: the held-out split, where the environment
    names such a setting; else those of training. Raises UnknownEnvironment."""
    if over is None:
        over = HELDOUT if "split" in inspect.signature(load(name)).parameters else {}
    return {**settings, **over}
