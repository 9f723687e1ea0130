"""A sweep: `python -m training.tune --config configs/sweep/NAME.yaml`. Ray Tune over whole runs, ASHA (arXiv
1810.05934) on the results in held-out situations.

What a trial owns, and what trials share:

- **Own**: the policy replicas (a Serve application with a name and an HTTP route of its own), weight store,
  coordinator, rollout workers, learner, run folder. A trial publishes a weight version a step, and a version is a
  number in one store: replicas that two trials shared would answer one of them with the other's weights.
- **Shared**: the Ray cluster, Serve's controller and HTTP port, and the start policy (built and warm-started once,
  before the first trial) unless the space varies something that it is made from; then each trial makes its own.

A trial that fails is a row of the table; the others go on. Ctrl-C and SIGTERM end the running trials in order, show
what there is, and exit with 130; a second one ends at once.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ray import tune

from configs.serving import HttpConfig
from configs.sweep import Dimension, SweepConfig, varied
from configs.training import TrainConfig
from deployments.storage import runs
from training.cluster import application, ray_session
from training.rollouts.session import session
from training.run.driver import root_cause, train_steps
from training.run.start import start_model

# The start policy is made from these sections.
START_SECTIONS = ("model", "env", "warmstart", "seed")

Say = Callable[[Any], None]


class SweepFailed(RuntimeError):
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


class Trial(tune.Trainable):
    """One run. `step` goes on to the next evaluation.

    Consumes: steps of its run. Waits for: the next evaluated step. Unblocked by: that step, or TrainingFailed. Stops
    when: the last step is done, or Tune calls `cleanup` (ASHA, an error, Ctrl-C), which ends application and workers.
    A class and not a function, because Tune waits for `cleanup` and does not wait for a function's `finally`.
    """

    def setup(self, config: dict[str, Any], base: dict[str, Any], name: str, model: str | None) -> None:
        self._values, self._base, self._model = config, TrainConfig.model_validate(base), model
        self._name = application_name(name, self.trial_id)
        self._owned = ExitStack()
        self._steps: Iterator[tuple[int, dict[str, float]]] | None = None

    def step(self) -> dict[str, Any]:
        if self._steps is None:
            self._steps = self._start()
        step, metrics = next((step, metrics) for step, metrics in self._steps if "eval/success" in metrics)
        done = step + 1 == self._run_config.steps
        if done:
            for _ in self._steps:  # the final checkpoint and model
                pass
            self._owned.close()
        reported = {key: metrics[key] for key in ("eval/success", "eval/return")}
        return {**reported, "step": step + 1, "run": str(self._run.path), "finished": done, "done": done}

    def _start(self) -> Iterator[tuple[int, dict[str, float]]]:
        self._run_config = trial_config(self._base, self._values, self._name)
        self._run = runs.create(self._run_config, self._name)
        model = Path(self._model) if self._model else start_model(self._run_config, self._run)
        live = self._owned.enter_context(
            session(self._run_config, self._run, model, self._name, route=f"/{self._name}")
        )
        return train_steps(live)

    def cleanup(self) -> None:
        self._owned.close()


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
    return f"{sweep}-{trial_id.rsplit('_', 1)[-1]}"


def domain(dimension: Dimension) -> Any:
    """Ray Tune's form of a dimension."""
    if dimension.grid is not None:
        return tune.grid_search(dimension.grid)
    if dimension.choice is not None:
        return tune.choice(dimension.choice)
    if dimension.uniform is not None:
        return tune.uniform(*dimension.uniform)
    assert dimension.loguniform is not None
    return tune.loguniform(*dimension.loguniform)


class Progress(tune.Callback):
    """A line a report; frees the replicas of a trial whose process died before it could."""

    def __init__(self, sweep: SweepConfig, name: str, say: Say) -> None:
        self._sweep, self._name, self._say = sweep, name, say

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any) -> None:
        name, metric = application_name(self._name, trial.trial_id), self._sweep.metric
        self._say(f"{name}  step {result['step']}  {metric} {result[metric]:.3f}  {shown_values(trial.config)}")

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        name = application_name(self._name, trial.trial_id)
        self._say(f"{name}  failed; the other trials go on")
        application.delete_applications(name)

    def __reduce__(self) -> Any:  # Tune saves its settings; a console cannot be saved
        return Progress, (self._sweep, self._name, print)


class StopOnEvent(tune.Stopper):
    """Ends all trials, each with its clean-up, once the event is set."""

    def __init__(self, event: threading.Event | None = None) -> None:
        self._event = event or threading.Event()

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._event.is_set()

    def __reduce__(self) -> Any:  # Tune saves its settings; an event cannot be saved
        return StopOnEvent, ()


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """Yields an event that the first SIGINT or SIGTERM sets; the second does what it did before."""
    event = threading.Event()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def on_signal(number: int, frame: Any) -> None:
        event.set()
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    for number in before:
        signal.signal(number, on_signal)
    try:
        yield event
    finally:
        restore()


def run_sweep(sweep: SweepConfig, base: TrainConfig, say: Say = print) -> SweepOutcome:
    """Runs all trials from `base` (`sweep.resolve()`), writes results.json and best.yaml, shows the table.

    Raises SweepFailed when no trial reported, KeyboardInterrupt when a signal ended it (what there is was shown)."""
    folder = runs.create(base, sweep.name)
    name = f"{sweep.name}-{folder.path.name.rsplit('-', 1)[-1]}"
    say(f"sweep folder {folder.path}")
    model = shared_start_model(sweep, base, folder, say)
    with ray_session.ray_session(), ExitStack() as stack:
        # Here and not in the trials: two of them would race for it.
        application.start_serve(HttpConfig(port=base.serving.http_port))
        stack.callback(application.delete_applications, f"{name}-")
        stack.callback(runs.remove_weights_of, name)
        interrupted = stack.enter_context(stop_signals())
        results = make_tuner(sweep, base, folder, name, model, interrupted, say).fit()
        outcome = summarize(sweep, folder.path, results, interrupted.is_set())
    write(outcome, sweep, base)
    show(outcome, sweep, say)
    if outcome.interrupted:
        raise KeyboardInterrupt
    if outcome.best is None:
        errors = sorted({trial.error for trial in outcome.trials if trial.error})
        raise SweepFailed(f"no trial of the sweep reported {sweep.metric}: {'; '.join(errors)}")
    return outcome


def shared_start_model(sweep: SweepConfig, base: TrainConfig, folder: runs.RunFolder, say: Say) -> str | None:
    """The policy that all trials start from; None when the space varies something that it is made from."""
    if any(key.split(".")[0] in START_SECTIONS for key in sweep.space):
        return None
    say("making the start policy, shared by all trials")
    return str(start_model(base, folder))


def make_tuner(
    sweep: SweepConfig,
    base: TrainConfig,
    folder: runs.RunFolder,
    name: str,
    model: str | None,
    interrupted: threading.Event,
    say: Say,
) -> Any:
    os.environ["RAY_CHDIR_TO_TRIAL_DIR"] = "0"  # relative model folders stay valid in a trial
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"  # results.json and the runs' metrics.jsonl hold it all
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # the new one prints with verbose=0, too
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # Tune's own ends the loop and says that all went well
    trainable = tune.with_parameters(Trial, base=base.dump(), name=name, model=model)
    return tune.Tuner(
        # For the trial's own process; what it starts reserves for itself.
        tune.with_resources(trainable, {"cpu": 0.1}),
        param_space={key: domain(dimension) for key, dimension in sweep.space.items()},
        tune_config=tune.TuneConfig(
            metric=sweep.metric,
            mode="max",
            num_samples=sweep.trials,
            scheduler=tune.schedulers.ASHAScheduler(
                time_attr="step",
                max_t=max(base.steps, sweep.grace_steps),
                grace_period=sweep.grace_steps,
                reduction_factor=sweep.reduction_factor,
            ),
            search_alg=tune.search.BasicVariantGenerator(max_concurrent=sweep.concurrency, random_state=sweep.seed),
        ),
        run_config=tune.RunConfig(
            name="ray_tune",
            storage_path=str(folder.path),
            verbose=0,
            stop=StopOnEvent(interrupted),
            callbacks=[Progress(sweep, name, say)],
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # a run writes its own
        ),
    )


def summarize(sweep: SweepConfig, folder: Path, results: Any, interrupted: bool) -> SweepOutcome:
    """Ray Tune's results in our terms, the best first."""
    trials = [trial_outcome(f"{number:05d}", result, interrupted) for number, result in enumerate(results)]

    def rank(trial: TrialOutcome) -> float:
        value = trial.success if sweep.metric == "eval/success" else trial.mean_return
        return float("-inf") if value is None else value

    return SweepOutcome(folder, sweep.metric, tuple(sorted(trials, key=rank, reverse=True)), interrupted)


def trial_outcome(number: str, result: Any, interrupted: bool) -> TrialOutcome:
    metrics = result.metrics or {}
    if result.error is not None:
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
        success=metrics.get("eval/success"),
        mean_return=metrics.get("eval/return"),
        run=metrics.get("run"),
        error=root_cause(result.error) if result.error is not None else None,
    )


def write(outcome: SweepOutcome, sweep: SweepConfig, base: TrainConfig) -> None:
    """results.json, and best.yaml: the whole configuration of the best trial."""
    best = outcome.best
    body = {
        "sweep": sweep.dump(),
        "best": best.trial if best else None,
        "interrupted": outcome.interrupted,
        "trials": [asdict(trial) for trial in outcome.trials],
    }
    outcome.results.write_text(json.dumps(body, indent=2))
    if best is not None:
        outcome.best_config.write_text(varied(base, best.values).to_yaml())


def show(outcome: SweepOutcome, sweep: SweepConfig, say: Say) -> None:
    """A row a trial, best first; then where the results are and how to run the best one again."""
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


def main() -> None:
    from training.cli import run

    sys.exit(run(["sweep", *sys.argv[1:]]))


if __name__ == "__main__":
    main()
