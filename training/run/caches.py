"""Where processes keep downloaded models and compiled kernels."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from configs.base import ConfigError
from configs.training import TrainConfig
from training.cluster import ray_session

# Variable -> the cache below the run's folder that it names.
FOLDERS = {
    "HF_HOME": "huggingface",
    "VLLM_CACHE_ROOT": "vllm",
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "TRITON_CACHE_DIR": "triton",
}


@contextmanager
def caches_of(config: TrainConfig, run: Path) -> Iterator[None]:
    """With `cache: apart` the processes that start within have their caches below `run`; with `shared` nothing changes.

    Raises ConfigError for `apart` on a Ray that is joined: its processes take their environment from where it was
    started.
    """
    if config.cache == "shared":
        yield
        return
    if not ray_session.starts_here():
        raise ConfigError(
            f"cache is 'apart', but this command joins a Ray that runs already: set {', '.join(FOLDERS)} where it is "
            "started, or cache to 'shared'"
        )
    before = {name: os.environ.get(name) for name in FOLDERS}
    os.environ.update({name: str(run / "cache" / folder) for name, folder in FOLDERS.items()})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
