"""Names of environments. Adding one is a file and a line in REGISTRY; packages add theirs by an entry point.

`PREFIX:NAME` is an environment of another library: adding such a library is a file and a line in ADAPTERS.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from envs.base import Env, EnvSpec, EnvUsageError, check_settings

REGISTRY: dict[str, str] = {
    "tictactoe": "envs.games.tictactoe:TicTacToe",
    "key_door": "envs.games.key_door:KeyDoor",
    "key_door_pixels": "envs.pixels.key_door_pixels:KeyDoorPixels",
    "wordle": "envs.games.wordle:Wordle",
    "bfcl": "envs.tools.bfcl:FunctionCalling",
    "arm": "envs.robots.arm:Arm",
    "cave": "envs.pixels.cave:Cave",
}
# Prefix -> a class whose first parameter is what follows the colon, and whose others are settings.
ADAPTERS: dict[str, str] = {
    "gym": "envs.bridges.gym:GymEnv",
    "minerl": "envs.bridges.minerl:MineRLEnv",
    "openenv": "envs.bridges.openenv:OpenEnv",
    "textarena": "envs.bridges.textarena:TextArenaEnv",
    "verifiers": "envs.bridges.verifiers:VerifiersEnv",
}
ENTRY_POINTS = "rayward.environments"
HELDOUT = {"split": "heldout"}


class UnknownEnvironment(EnvUsageError):
    """No environment of this name; the message lists those that exist."""


class BrokenPlugin(EnvUsageError):
    """An environment of an installed package that cannot be loaded; the message names the package and the cause."""


class Adapted:
    """An adapter's class with the name that it adapts: it is made from settings alone, as an environment's class is."""

    def __init__(self, name: str) -> None:
        """`name` is PREFIX:NAME, with a prefix of ADAPTERS."""
        prefix, _, self._target = name.partition(":")
        adapter = _attribute(ADAPTERS[prefix])
        self._adapter: Callable[..., Env] = adapter
        self.blocking, self.isolated = adapter.blocking, adapter.isolated
        self.__name__ = name
        signature = inspect.signature(adapter)
        self.__signature__ = signature.replace(parameters=[*signature.parameters.values()][1:])

    def __call__(self, **settings: Any) -> Env:
        return self._adapter(self._target, **settings)


def names() -> list[str]:
    """Of the environments that need no prefix."""
    return sorted({*REGISTRY, *_plugins(tuple(sys.path))})


def named(given: str) -> str:
    """The name of the environment that is meant by `given`: the name itself, or as environment packages for the library
    verifiers are named, with `vf-` in front and hyphens. Raises UnknownEnvironment.

    >>> named("vf-key-door"), named("gym:CartPole-v1")
    ('key_door', 'gym:CartPole-v1')
    """
    if ":" in given or given in names():
        return given
    found = next((name for name in names() if _letters(name) == _letters(given)), None)
    if found is None:
        raise _unknown(given)
    return found


def _letters(name: str) -> str:
    """Without the prefix, hyphens and underscores."""
    return re.sub("[-_]", "", re.sub("^vf[-_]", "", name.lower()))


def load(name: str) -> type[Env] | Adapted:
    """The class of an environment, imported on first use. Raises UnknownEnvironment, BrokenPlugin."""
    if name in REGISTRY:
        return _attribute(REGISTRY[name])
    plugins = _plugins(tuple(sys.path))
    if name in plugins:
        return _plugged_in(plugins[name])
    if is_adapted(name):
        return Adapted(name)
    if ":" in name:
        return _imported(name)
    raise _unknown(name)


def _unknown(name: str) -> UnknownEnvironment:
    near = difflib.get_close_matches(name, names(), n=1, cutoff=0.4)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return UnknownEnvironment(f"no environment {name!r}.{hint} Environments: {', '.join([*names(), *prefixes()])}")


def is_adapted(name: str) -> bool:
    """Whether an environment is one of another library: PREFIX:NAME."""
    return ":" in name and name.partition(":")[0] in ADAPTERS


def prefixes() -> list[str]:
    """How environments of other libraries are named: ["gym:NAME"]."""
    return [f"{prefix}:NAME" for prefix in ADAPTERS]


def _attribute(path: str) -> type[Env]:
    module, _, attribute = path.partition(":")
    cls: type[Env] = getattr(importlib.import_module(module), attribute)
    return cls


@lru_cache(maxsize=8)
def _plugins(path: tuple[str, ...]) -> dict[str, EntryPoint]:
    """The entry points of the packages on `sys.path`. Looking through all packages takes 10 ms and more, and every
    episode makes an environment: it is done once for a path."""
    points: dict[str, EntryPoint] = {}
    for point in entry_points(group=ENTRY_POINTS):
        points.setdefault(point.name, point)
    return points


def _plugged_in(point: EntryPoint) -> type[Env]:
    """The class of another package's entry point. Raises BrokenPlugin."""
    package = f"the package {point.dist.name} {point.dist.version}" if point.dist else "an installed package"
    what = f"environment {point.name!r} of {package} ({point.value})"
    try:
        found = point.load()
    except Exception as error:  # whatever somebody else's module raises while it is imported
        reason = f"{type(error).__name__}: {error}"
        raise BrokenPlugin(f"{what} cannot be loaded: {reason}. Repair or uninstall that package") from error
    if not (isinstance(found, type) and issubclass(found, Env)):
        raise BrokenPlugin(f"{what} is no class on envs.base.Env, but {found!r:.80}")
    return found


def _imported(path: str) -> type[Env]:
    """The class at `package.module:Class`, for an environment that is not installed. Raises UnknownEnvironment."""
    try:
        return _attribute(path)
    except (ImportError, AttributeError) as error:
        known = f"Names with a prefix: {', '.join(prefixes())}"
        raise UnknownEnvironment(f"environment {path!r} cannot be imported: {error}. {known}") from error


def make(name: str, **settings: Any) -> Env:
    """A fresh environment. Raises UnknownEnvironment, or SettingError for a setting it does not take."""
    cls = load(name)
    check_settings(cls, settings)
    return cls(**settings)


def spec(name: str, **settings: Any) -> EnvSpec:
    return make(name, **settings).spec


def has_split(name: str) -> bool:
    """Whether the environment has a setting `split`: situations that training leaves out. Raises UnknownEnvironment."""
    return "split" in inspect.signature(load(name)).parameters


def evaluation_settings(name: str, settings: Mapping[str, Any], over: Mapping[str, Any] | None) -> dict[str, Any]:
    """Settings of the evaluation: `over` laid over those of training. None: the held-out split, where the environment
    names such a setting; else those of training. Raises UnknownEnvironment."""
    if over is None:
        over = HELDOUT if has_split(name) else {}
    return {**settings, **over}
