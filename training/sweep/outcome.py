"""What the trials of a sweep found, the best first."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from configs.base import UserError
from configs.sweep import SweepConfig
from training.run.driver import root_cause


class SweepFailed(UserError):
    """No trial of the sweep reported a result; the message holds the trials' errors."""


@dataclass(frozen=True)
class TrialOutcome:
    """One trial. `trial` is its number, as in the name of its run; `success` and `mean_return` are those of its last
    report, None when it made none."""

    trial: str
    values: dict[str, Any]
    status: str  # finished, stopped early, failed, interrupted, running
    step: int
    success: float | None
    mean_return: float | None
    run: str | None
    error: str | None = None

    @property
    def decided(self) -> bool:
        """Whether a resume of the sweep leaves it as it is."""
        return self.status in ("finished", "stopped early")


@dataclass(frozen=True)
class SweepOutcome:
    """All trials, the best first; those without a result at the end."""

    folder: Path
    metric: str
    trials: tuple[TrialOutcome, ...]
    interrupted: bool

    @property
    def best(self) -> TrialOutcome | None:
        return self.trials[0] if self.trials and self.trials[0].success is not None else None

    @property
    def results(self) -> Path:
        return self.folder / "results.json"

    @property
    def best_config(self) -> Path:
        return self.folder / "best.yaml"


def summarize(
    sweep: SweepConfig, folder: Path, results: Any, interrupted: bool, before: Iterable[TrialOutcome] = ()
) -> SweepOutcome:
    """Ray Tune's results in our terms, the best first. `before`: what was known when a sweep was resumed."""
    known = {trial.trial: trial for trial in before}
    for number, result in enumerate(results):
        name = f"{number:05d}"
        found = trial_outcome(name, result.config or {}, result.metrics or {}, result.error)
        known[name] = newer(known.get(name), found)
    ended = (
        replace(trial, status="interrupted" if interrupted else "stopped early") if trial.status == "running" else trial
        for trial in known.values()
    )
    return ranked(sweep, folder, ended, interrupted)


def ranked(sweep: SweepConfig, folder: Path, trials: Iterable[TrialOutcome], interrupted: bool) -> SweepOutcome:
    """The best first, those without a result at the end."""

    def rank(trial: TrialOutcome) -> float:
        value = trial.success if sweep.metric == "eval/success" else trial.mean_return
        return -math.inf if value is None else value

    return SweepOutcome(folder, sweep.metric, tuple(sorted(trials, key=rank, reverse=True)), interrupted)


def newer(before: TrialOutcome | None, now: TrialOutcome) -> TrialOutcome:
    """A resumed trial reports again what it had reported: until it is past that, what was known counts."""
    if before is not None and now.error is None and now.step < before.step:
        return before
    return now


def trial_outcome(
    number: str, values: dict[str, Any], metrics: dict[str, Any], error: BaseException | None
) -> TrialOutcome:
    """A trial after its last report, `metrics` (empty where it made none)."""
    success, mean_return = metrics.get("eval/success"), metrics.get("eval/return")
    cause = None if error is None else root_cause(error)
    if any(value is not None and not math.isfinite(value) for value in (success, mean_return)):
        cause = cause or f"its last result is no number: success {success}, return {mean_return}"
        success = mean_return = None  # it compares with nothing: sorted, it could come first
    if cause is not None:
        status = "failed"
    elif metrics.get("finished"):
        status = "finished"
    else:
        status = "stopped early" if metrics.get("done") else "running"
    return TrialOutcome(
        trial=number,
        values=dict(values),
        status=status,
        step=metrics.get("step", 0),
        success=success,
        mean_return=mean_return,
        run=metrics.get("run"),
        error=cause,
    )


def read_results(file: Path) -> list[TrialOutcome]:
    """The trials of a results.json; none where there is no such file."""
    if not file.exists():
        return []
    return [TrialOutcome(**trial) for trial in json.loads(file.read_text())["trials"]]
