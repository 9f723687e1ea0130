"""Where metrics go: JSON lines, Weights & Biases, Prometheus (through Ray's metrics). One call logs to all."""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from configs.base import ConfigError
from configs.training import TrainConfig
from deployments.storage import atomic
from training.tracking.json_lines import JsonLines, read_rows

logger = logging.getLogger("rayward")


class Monitor(Protocol):
    def log(self, step: int, metrics: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class Wandb:
    """Weights & Biases, online or offline. The key comes from the environment.

    W&B drops a value whose step its run has already passed, so steps that a resume plays again would be lost there. A
    resume without such steps continues the W&B run. With such steps it begins a W&B run of its own, in the same group,
    which gets the steps before them from metrics.jsonl: that run shows each step once, as in metrics.jsonl. (W&B's
    rewind of a run does the same and is not open to all accounts.)
    """

    def __init__(self, config: TrainConfig, folder: Path, replayed: int = 0) -> None:
        """`replayed`: how many steps that were logged before are played again."""
        import wandb

        current = folder / "wandb_run.txt"  # the id of the W&B run that the next resume continues
        before = current.read_text() if current.exists() else None
        name = folder.name if before is None else before
        if before is not None and replayed:
            name = f"{folder.name}-resumed-{uuid.uuid4().hex[:6]}"
        self._run = wandb.init(
            project=config.tracking.wandb_project,
            name=name,
            id=name,
            group=folder.name,
            resume="allow",
            dir=str(folder),
            mode=config.tracking.wandb,
            config=config.dump(),
        )
        self._run.define_metric("*", step_metric="step")
        if name != before:
            for row in read_rows(folder / "metrics.jsonl"):
                self._run.log({key: value for key, value in row.items() if value is not None})
            atomic.write_text(current, name)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._run.log({"step": step, **metrics})  # without W&B's own step, which drops what it has passed

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
    """All monitors that the configuration asks for. metrics.jsonl is part of the run: an error there ends it. A service
    that fails (no network, no key, a full queue) is switched off with a warning, and the run continues."""

    def __init__(self, config: TrainConfig, folder: Path, first_step: int = 0) -> None:
        self._lines = JsonLines(folder / "metrics.jsonl", first_step)
        self._services: dict[str, Monitor] = {}
        if config.tracking.wandb != "off":
            os.environ.setdefault("WANDB_SILENT", "true")
            self._start("wandb", lambda: Wandb(config, folder, self._lines.replayed))
        if config.tracking.prometheus:
            self._start("prometheus", lambda: Prometheus(folder.name))

    def _start(self, name: str, make: Callable[[], Monitor]) -> None:
        try:
            self._services[name] = make()
        except Exception as error:  # a service's own exceptions: no list of them is complete
            _switched_off(name, error)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._lines.log(step, metrics)
        for name, service in list(self._services.items()):
            try:
                service.log(step, metrics)
            except Exception as error:
                del self._services[name]
                _switched_off(name, error)

    def close(self) -> None:
        self._lines.close()
        for name, service in self._services.items():
            try:
                service.close()
            except Exception as error:
                _switched_off(name, error)


def check_tracking(config: TrainConfig) -> None:
    """Raises ConfigError for Weights & Biases online without a key: it would ask for one on the console of a process
    that has none, after all has been started."""
    if config.tracking.wandb != "online":
        return
    import wandb

    if not wandb.login(prompt=False, verify=False):
        raise ConfigError(
            "tracking.wandb is 'online', and there is no key: set WANDB_API_KEY or run `wandb login`, or choose "
            "'offline' (upload later with `wandb sync`) or 'off'"
        )


def _switched_off(name: str, error: Exception) -> None:
    logger.warning("tracking.%s failed and is switched off for this run: %s: %s", name, type(error).__name__, error)
