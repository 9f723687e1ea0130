"""Where an export is written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from configs.base import ConfigError
from deployments.storage.atomic import written_whole


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yields a folder that becomes `folder` when it is complete; an interrupted export leaves nothing there. Raises
    ConfigError where something lies there already: it may be a dataset that was changed by hand."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} exists and is not empty: name a new folder with --output, or remove it")
    with written_whole(folder) as staged:
        yield staged
