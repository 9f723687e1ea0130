"""The folder of a run: `{storage_path}/runs/{experimenter}/{experiment}/{run_id}` and the files in it."""

from __future__ import annotations

import datetime
import glob
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from configs.base import ConfigError
from configs.training import TrainConfig
from deployments.storage import atomic, owned


@dataclass(frozen=True)
class RunFolder:
    """Paths of one run; creating the object creates nothing."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.json"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def episodes(self) -> Path:
        return self.path / "episodes"

    @property
    def evaluations(self) -> Path:
        return self.path / "eval"

    @property
    def start_model(self) -> Path:
        """The policy that GRPO starts from (after the warm start, if there is one)."""
        return self.path / "models" / "start"

    @property
    def final_model(self) -> Path:
        return self.path / "models" / "final"

    def weights_root(self, config: TrainConfig) -> str:
        """The weight store: as configured, else in the machine's shared memory, else in the run's folder. In shared
        memory it belongs to the process that asks."""
        if config.weights.root is not None:
            return config.weights.root
        if os.access(owned.SHARED_MEMORY, os.W_OK):
            return str(owned.SHARED_MEMORY / owned.name_for("store", self.path.name))
        return str(self.path / "weights")

    def load_config(self, overrides: Sequence[str] = ()) -> TrainConfig:
        if not self.config.is_file():
            raise ConfigError(f"{self.path} is not a run folder: it has no config.json")
        return TrainConfig.parse(json.loads(self.config.read_text()), overrides, source=str(self.config))


def create(config: TrainConfig, name: str | None = None) -> RunFolder:
    """A fresh run folder with its resolved configuration. Raises ConfigError when it cannot be written."""
    if "://" in config.storage_path:
        raise ConfigError(
            f"storage_path {config.storage_path!r}: a run is written to a local or mounted folder; "
            "copy it to object storage afterwards, and set weights.root to a URI for replicas without a shared disk"
        )
    stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S")
    parent = _parent(config)
    try:
        parent.mkdir(parents=True, exist_ok=True)
        path = Path(tempfile.mkdtemp(prefix=f"{name or config.name}-{stamp}-", dir=parent))
        path.chmod(0o755)
        run = RunFolder(path)
        for folder in (run.checkpoints, run.evaluations):
            folder.mkdir()
        atomic.write_text(run.config, json.dumps(config.dump(), indent=2))
    except OSError as error:
        raise ConfigError(f"cannot write a run folder below {parent}: {error}. Set storage_path elsewhere") from error
    return run


def newest(config: TrainConfig, name: str) -> RunFolder | None:
    """The newest run that `create` made with this name; None where there is none."""
    found = [path for path in _parent(config).glob(f"{glob.escape(name)}-*") if (path / "config.json").is_file()]
    return RunFolder(max(found)) if found else None  # the stamp is in the folder's name


def _parent(config: TrainConfig) -> Path:
    return Path(config.storage_path).expanduser().resolve() / "runs" / config.experimenter / config.experiment


def find(name: str, storage_path: str = ".") -> RunFolder:
    """A run by folder or by id. Raises ConfigError."""
    direct = Path(name)
    if (direct / "config.json").is_file():
        return RunFolder(direct.resolve())
    found = sorted(Path(storage_path).expanduser().glob(f"runs/*/*/{name}*"))
    if len(found) == 1:
        return RunFolder(found[0].resolve())
    if found:
        raise ConfigError(f"{name!r} names several runs: {', '.join(run.name for run in found)}")
    raise ConfigError(f"no run {name!r} below {storage_path}/runs: give its folder or its id")


def remove_weights(root: str) -> None:
    """Frees the shared memory of a finished run of this process; a store that was configured stays. Readers' caches,
    whose replicas have ended by now, go first: their hard links hold the same memory."""
    owned.take_back()
    if owned.Owner.of(Path(root)) == owned.Owner.current():
        shutil.rmtree(root, ignore_errors=True)


def remove_weights_of(name: str) -> None:
    """Frees what runs of this name left in this machine's shared memory: those whose process was killed."""
    owned.take_back()
    for root in owned.SHARED_MEMORY.glob(f"rayward-store-*-{glob.escape(name)}-*"):
        shutil.rmtree(root, ignore_errors=True)
