"""One trial of a sweep: a whole run with replicas, store and learner of its own."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ray import tune

from configs.sweep import varied
from configs.training import TrainConfig
from deployments.storage import runs
from deployments.storage.ownership import owned_by_us
from training.learner import checkpoint
from training.rollouts.session import open_session
from training.run.driver import train_steps
from training.run.start import start_model
from training.sweep.outcome import TrialOutcome
from training.tracking.json_lines import read_rows

# The start policy is made from these sections.
START_SECTIONS = ("model", "env", "warmstart", "seed")


class Trial(tune.Trainable):
    """One run. `step` trains until the next evaluation.

    Consumes: steps of its run. Waits for: the next evaluated step. Unblocked by: that step, or TrainingFailed. Stops
    when: the last step is done, or Tune calls `cleanup` (ASHA, an error, Ctrl-C), which ends application and workers.
    A class and not a function, because Tune waits for `cleanup` and does not wait for a function's `finally`.

    In a resumed sweep it first reports again what its run has in metrics.jsonl, since ASHA compares a trial with the
    earlier reports of others, and Tune does not keep them. Then its run goes on from its newest checkpoint.
    """

    def setup(
        self,
        config: dict[str, Any],
        base: dict[str, Any],
        name: str,
        model: str | None,
        before: dict[str, TrialOutcome] | None = None,
    ) -> None:
        """`before`: by trial, what was known when the sweep was resumed."""
        self._values, self._base, self._model = config, TrainConfig.model_validate(base), model
        self._name = application_name(name, self.trial_id)
        self._before = (before or {}).get(trial_number(self.trial_id))
        self._owned = ExitStack()
        self._reports: Iterator[dict[str, Any]] | None = None

    def step(self) -> dict[str, Any]:
        if self._reports is None:
            decided = self._before is not None and self._before.decided
            self._reports = decided_reports(self._before) if decided and self._before else self._run_reports()
        return next(self._reports)

    def _run_reports(self) -> Iterator[dict[str, Any]]:
        config = trial_config(self._base, self._values, self._name)
        run = run_to_continue(config, self._name) or runs.create(config, self._name)
        self._owned.enter_context(owned_by_us(run.path))
        known, last = self._before.step if self._before else 0, None
        for report in reports_before_resume(run):
            if report["step"] == config.steps:
                last = report
            else:
                yield {**report, "replayed": report["step"] <= known, "finished": False, "done": False}
        if last is None or not run.final_model.is_dir():
            for step, metrics in self._train(config, run):
                if "eval/success" in metrics:
                    last = report_of(run, step, metrics)
                    if last["step"] < config.steps:
                        yield {**last, "finished": False, "done": False}
        self._owned.close()
        yield {**(last or {}), "finished": True, "done": True}

    def _train(self, config: TrainConfig, run: runs.RunFolder) -> Iterator[tuple[int, dict[str, float]]]:
        made = run.start_model if run.start_model.is_dir() else None
        model = Path(self._model) if self._model else made or start_model(config, run)
        session = self._owned.enter_context(open_session(config, run, model, self._name, route=f"/{self._name}"))
        return train_steps(session)

    def cleanup(self) -> None:
        self._owned.close()


def run_to_continue(config: TrainConfig, name: str) -> runs.RunFolder | None:
    """The run that a killed sweep left of this trial: the newest of its name, if it is of just this configuration."""
    run = runs.newest(config, name)
    return run if run is not None and run.load_config() == config else None


def reports_before_resume(run: runs.RunFolder) -> list[dict[str, Any]]:
    """The reports of the steps that the newest checkpoint holds: later ones are played again."""
    done = max(checkpoint.steps(run.checkpoints), default=0)
    rows = read_rows(run.metrics) if run.metrics.exists() else []
    evaluated = [(int(row["step"] or 0), row) for row in rows if "eval/success" in row]
    return [report_of(run, step, row) for step, row in evaluated if step < done]


def report_of(run: runs.RunFolder, step: int, metrics: Mapping[str, float | None]) -> dict[str, Any]:
    """After step number `step`, which count from 0; `metrics` has the evaluation, None for what was no number."""
    values = {key: metrics[key] for key in ("eval/success", "eval/return")}
    numbers = {key: math.nan if value is None else value for key, value in values.items()}
    return {**numbers, "step": step + 1, "run": str(run.path)}


def decided_reports(trial: TrialOutcome) -> Iterator[dict[str, Any]]:
    """What a trial reported that ended before its sweep was resumed; nothing is started."""
    run = runs.RunFolder(Path(trial.run or ""))
    for report in reports_before_resume(run):
        if report["step"] < trial.step:
            yield {**report, "replayed": True, "finished": False, "done": False}
    yield {
        "eval/success": trial.success,
        "eval/return": trial.mean_return,
        "step": trial.step,
        "run": trial.run,
        "replayed": True,
        "finished": trial.status == "finished",
        "done": True,
    }


def trial_config(base: TrainConfig, values: dict[str, Any], name: str) -> TrainConfig:
    """The run of one trial: a weight store of its own where one is configured, and the port that the sweep opened."""
    own: dict[str, Any] = {"serving.http_port": 0}
    if base.weights.root is not None:
        own["weights.root"] = f"{base.weights.root.rstrip('/')}/{name}"
    return varied(base, {**values, **own})


def application_name(sweep: str, trial_id: str) -> str:
    """`sweep` is unique on the cluster; Tune's ids end in the number of the trial.

    >>> application_name("lr-x7k2", "5f0c1_00003")
    'lr-x7k2-00003'
    """
    return f"{sweep}-{trial_number(trial_id)}"


def trial_number(trial_id: str) -> str:
    """
    >>> trial_number("5f0c1_00003")
    '00003'
    """
    return trial_id.rsplit("_", 1)[-1]
