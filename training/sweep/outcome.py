"""What the trials of a sweep found, the best first."""

from __future__ import annotations

import math
from dataclasses import dataclass
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
    status: str  # finished, stopped early, failed, interrupted
    step: int
    success: float | None
    mean_return: float | None
    run: str | None
    error: str | None = None


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


def summarize(sweep: SweepConfig, folder: Path, results: Any, interrupted: bool) -> SweepOutcome:
    """Ray Tune's results in our terms, the best first."""
    trials = [trial_outcome(f"{number:05d}", result, interrupted) for number, result in enumerate(results)]

    def rank(trial: TrialOutcome) -> float:
        value = trial.success if sweep.metric == "eval/success" else trial.mean_return
        return -math.inf if value is None else value

    return SweepOutcome(folder, sweep.metric, tuple(sorted(trials, key=rank, reverse=True)), interrupted)


def trial_outcome(number: str, result: Any, interrupted: bool) -> TrialOutcome:
    metrics = result.metrics or {}
    success, mean_return = metrics.get("eval/success"), metrics.get("eval/return")
    error = None if result.error is None else root_cause(result.error)
    if any(value is not None and not math.isfinite(value) for value in (success, mean_return)):
        error = error or f"its last result is no number: success {success}, return {mean_return}"
        success = mean_return = None  # it compares with nothing: sorted, it could come first
    if error is not None:
        status = "failed"
    elif metrics.get("finished"):
        status = "finished"
    else:
        status = "interrupted" if interrupted else "stopped early"
    return TrialOutcome(
        trial=number,
        values=dict(result.config or {}),
        status=status,
        step=metrics.get("step", 0),
        success=success,
        mean_return=mean_return,
        run=metrics.get("run"),
        error=error,
    )
