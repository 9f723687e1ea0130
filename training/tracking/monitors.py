"""Where metrics go: JSON lines, Weights & Biases, Prometheus (through Ray's metrics). One call logs to all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from configs.training import TrainConfig
from training.tracking.json_lines import JsonLines


class Monitor(Protocol):
    def log(self, step: int, metrics: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class Wandb:
    """Weights & Biases, online or offline. The key comes from the environment."""

    def __init__(self, config: TrainConfig, folder: Path, run_id: str) -> None:
        import wandb

        self._run = wandb.init(
            project=config.tracking.wandb_project,
            name=run_id,
            id=run_id,
            resume="allow",
            dir=str(folder),
            mode=config.tracking.wandb,
            config=config.dump(),
        )

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._run.log(dict(metrics), step=step)

    def close(self) -> None:
        self._run.finish()


class Prometheus:
    """Gauges on Ray's metrics endpoint: `train/loss` becomes `rayward_train_loss`."""

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._gauges: dict[str, Any] = {}

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        from ray.util.metrics import Gauge

        for name, value in metrics.items():
            if name not in self._gauges:
                gauge = Gauge("rayward_" + name.replace("/", "_"), name, ("run",))
                gauge.set_default_tags({"run": self._run_id})
                self._gauges[name] = gauge
            self._gauges[name].set(value)

    def close(self) -> None:
        return None


class Monitors:
    """All monitors that the configuration asks for."""

    def __init__(self, config: TrainConfig, folder: Path, first_step: int = 0) -> None:
        self._all: list[Monitor] = [JsonLines(folder / "metrics.jsonl", first_step)]
        if config.tracking.wandb != "off":
            os.environ.setdefault("WANDB_SILENT", "true")
            self._all.append(Wandb(config, folder, folder.name))
        if config.tracking.prometheus:
            self._all.append(Prometheus(folder.name))

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        for monitor in self._all:
            monitor.log(step, metrics)

    def close(self) -> None:
        for monitor in self._all:
            monitor.close()
