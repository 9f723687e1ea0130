"""Training scripts of a user: a function that gets the configuration, in place of the built-in loop."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from configs.base import ConfigError
from configs.training import TrainConfig

Script = Callable[[TrainConfig], Any]


def find(config: TrainConfig, name: str) -> Script:
    """The function that `scripts` of the configuration names. Modules are looked for in the working folder, too.

    Raises ConfigError when there is no such name, or no such function. An error within the module is the user's own and
    keeps its traceback.
    """
    target = config.scripts.get(name)
    if target is None:
        known = ", ".join(sorted(config.scripts)) or "none; add `scripts: {NAME: package.module:function}`"
        raise ConfigError(f"--script {name}: the configuration has no script of that name. Scripts: {known}")
    module_name, _, function = target.partition(":")
    where = f"scripts.{name} is {target!r}"
    if not module_name or not function:
        raise ConfigError(f"{where}: it must look like package.module:function")
    module = _imported(module_name, where)
    found = getattr(module, function, None)
    if not callable(found):
        problem = "is no function" if hasattr(module, function) else "does not exist"
        raise ConfigError(
            f"{where}: {function} {problem} in {module.__file__}: name a function that takes a TrainConfig"
        )
    script: Script = found
    return script


def _imported(module: str, where: str) -> Any:
    """The module, also from the folder in which the command was called: only `python -m` looks there by itself."""
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not (module == error.name or module.startswith(f"{error.name}.")):
            raise  # a library that the script needs
        raise ConfigError(f"{where}: there is no module {module}, neither in {here} nor installed") from error
