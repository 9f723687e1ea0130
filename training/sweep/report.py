"""What a sweep says while it runs, and writes after each report and at its end."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ray import tune

from configs.sweep import SweepConfig, varied
from configs.training import TrainConfig
from deployments.storage import atomic
from training.cluster import application
from training.sweep.outcome import SweepOutcome, TrialOutcome, newer, ranked, trial_outcome
from training.sweep.trial import application_name, trial_number

Say = Callable[[Any], None]


class Progress(tune.Callback):
    """Prints one line per report and writes the results so far: a sweep that is killed has them. Frees the replicas of
    a trial whose process died before it could."""

    def __init__(
        self,
        sweep: SweepConfig,
        base: TrainConfig,
        folder: Path,
        name: str,
        say: Say,
        before: Sequence[TrialOutcome] = (),
    ) -> None:
        """`before`: what was known when the sweep was resumed."""
        self._sweep, self._base, self._folder, self._name, self._say = sweep, base, folder, name, say
        self._known = {trial.trial: trial for trial in before}

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any) -> None:
        self._note(trial, result, None)
        if not result.get("replayed"):
            name, metric = application_name(self._name, trial.trial_id), self._sweep.metric
            self._say(f"{name}  step {result['step']}  {metric} {result[metric]:.3f}  {shown_values(trial.config)}")

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        name = application_name(self._name, trial.trial_id)
        self._say(f"{name}  failed; the other trials go on")
        self._note(trial, trial.last_result, trial.get_pickled_error() or trial.get_error())
        application.delete_applications(name)

    def _note(self, trial: Any, metrics: dict[str, Any], error: BaseException | None) -> None:
        number = trial_number(trial.trial_id)
        found = trial_outcome(number, trial.config, metrics, error)
        self._known[number] = newer(self._known.get(number), found)
        outcome = ranked(self._sweep, self._folder, self._known.values(), interrupted=False)
        write(outcome, self._sweep, self._base)

    def __reduce__(self) -> Any:  # Tune saves its settings; a console cannot be saved
        before = tuple(self._known.values())
        return Progress, (self._sweep, self._base, self._folder, self._name, print, before)


def write(outcome: SweepOutcome, sweep: SweepConfig, base: TrainConfig) -> None:
    """results.json, and best.yaml: the whole configuration of the best trial."""
    best = outcome.best
    body = {
        "sweep": sweep.dump(),
        "best": best.trial if best else None,
        "interrupted": outcome.interrupted,
        "trials": [asdict(trial) for trial in outcome.trials],
    }
    atomic.write_text(outcome.results, json.dumps(body, indent=2))
    if best is not None:
        atomic.write_text(outcome.best_config, varied(base, best.values).to_yaml())


def show(outcome: SweepOutcome, sweep: SweepConfig, say: Say) -> None:
    """A table with one row per trial, the best first; then where the results are and how to repeat the best trial."""
    from rich.table import Table

    shown = Table(title=f"{sweep.name}: {len(outcome.trials)} trials, best {sweep.metric} first")
    for column in ("trial", *sweep.space, "step", "success", "mean return", "ended"):
        shown.add_column(column, overflow="fold")
    for trial in outcome.trials:
        measured = ["-" if value is None else f"{value:.3f}" for value in (trial.success, trial.mean_return)]
        values = [shown_value(trial.values.get(key)) for key in sweep.space]
        shown.add_row(trial.trial, *values, str(trial.step), *measured, trial.status)
    say(shown)
    for trial in outcome.trials:
        if trial.error:
            say(f"trial {trial.trial} failed: {trial.error}")
    say(f"results      {outcome.results}")
    if outcome.best is not None:
        say(f"best trial   {outcome.best.trial}: {shown_values(outcome.best.values)}\n  run {outcome.best.run}")
        say(f"run it again: rayward train --config {outcome.best_config}")


def shown_value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def shown_values(values: dict[str, Any]) -> str:
    return "  ".join(f"{key}={shown_value(value)}" for key, value in values.items())
