"""What the surroundings of a command say: the file `.env` in the working folder, and who experiments with what."""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping
from pathlib import Path

from configs.base import ConfigError

FILE = ".env"
# Variable -> the setting of a training configuration whose default it is.
RUN_NAMES = {"EXPERIMENTER": "experimenter", "EXPERIMENT_NAME": "experiment"}


def load_variables(folder: Path | None = None, environment: MutableMapping[str, str] = os.environ) -> list[str]:
    """Puts the variables of `.env` (in `folder`, by default the working folder) into the environment and returns their
    names. One that is set already stays as it is; one without a value is left out. Without such a file nothing happens.

    Values are secrets: they go into the environment of this process, which those that it starts inherit, and nowhere
    else. Raises ConfigError for a file that cannot be read; its message holds nothing of the file.
    """
    file = (folder or Path()) / FILE
    if not file.is_file():
        return []
    from dotenv import dotenv_values  # here: `import configs` needs pydantic and yaml alone

    try:
        found = dotenv_values(file)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file.absolute()} cannot be read: {type(error).__name__}. Make it readable UTF-8") from None
    new = {name: value for name, value in found.items() if value and name not in environment}
    environment.update(new)
    return sorted(new)


def run_names(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The settings that EXPERIMENTER and EXPERIMENT_NAME name, where they are set.

    >>> run_names({"EXPERIMENTER": "ada", "EXPERIMENT_NAME": ""})
    {'experimenter': 'ada'}
    """
    return {setting: environment[name] for name, setting in RUN_NAMES.items() if environment.get(name)}
