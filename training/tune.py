"""A sweep: `python -m training.tune --config configs/sweep/NAME.yaml`. Ray Tune over whole runs, ASHA on the evaluation.

Every trial is a process with a Serve application, weight store and run folder of its own; what trials share is the
start policy, when nothing that it depends on varies.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import ray
from ray import tune

from configs.base import ConfigError
from configs.training import TrainConfig
from configs.tuning import Dimension, SweepConfig
from training import cluster, runs
from training.evaluate import evaluate
from training.grpo import Session, session, start_model, train

# The start policy depends on these sections: a sweep that varies one of them builds it anew in every trial.
START_SECTIONS = ("model", "env", "warmstart", "seed")


def resolve(sweep: SweepConfig) -> TrainConfig:
    """The configuration that trials start from, after every extreme of the space was tried against the schema.

    Raises ConfigError."""
    base = TrainConfig.load(sweep.train, sweep.overrides)
    for key, dimension in sweep.space.items():
        for value in dimension.extremes:
            varied(base, {key: value})
    storage = Path(base.storage_path).expanduser().resolve() if "://" not in base.storage_path else base.storage_path
    return varied(base, {"storage_path": str(storage)})


def varied(base: TrainConfig, values: dict[str, Any]) -> TrainConfig:
    """`base` with each `a.b` set. Raises ConfigError for a key that does not exist."""
    data = base.dump()
    for key, value in values.items():
        *parents, last = key.split(".")
        section = data
        for name in parents:
            if not isinstance(section.get(name), dict):
                raise ConfigError(f"space: {key!r}: {name!r} is no section of a training configuration")
            section = section[name]
        section[last] = value
    return TrainConfig.parse(data, source=f"space {', '.join(values)}")


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


def trial(values: dict[str, Any], base: dict[str, Any], sweep: dict[str, Any], model: str | None) -> None:
    """One run, in a process of its own. Reports the evaluation every `evaluate_every_steps` and at the end; ASHA may
    end it after each report."""
    settings = SweepConfig.model_validate(sweep)
    config = varied(TrainConfig.model_validate(base), values)
    name = f"{settings.name}-{tune.get_context().get_trial_id()}"
    run = runs.create(config, name)
    start = Path(model) if model else start_model(config, run)
    with own_application(config, run, start, name) as live:
        every = settings.evaluate_every_steps

        def report(label: str, step: int) -> None:
            result = evaluate(live, label, live.store.latest() or 0)
            metrics = {"eval/success": result.success.value, "eval/return": result.mean_return.value}
            tune.report(metrics | {"step": step, "run": str(run.path)})

        def on_step(step: int, metrics: dict[str, float]) -> None:
            done = step + 1
            if done % every == 0 and done < config.steps:  # the replicas may get newer weights meanwhile
                report(f"step {done}", done)

        train(live, on_step)
        report("trained", config.steps)


@contextmanager
def own_application(config: TrainConfig, run: runs.RunFolder, model: Path, name: str) -> Iterator[Session]:
    """A session on an application of this trial's own: name, route and weight store."""
    root = run.weights_root(config)
    served = cluster.serve_config(config, str(model), root)
    http = served.http.model_copy(update={"root_path": f"/{name}"})
    with ExitStack() as stack:
        stack.enter_context(cluster.application(served.model_copy(update={"name": name, "http": http})))
        yield stack.enter_context(session(varied(config, {"serving.connect": name}), run, model))


def run_sweep(sweep: SweepConfig, say: Any = print) -> Any:
    """Runs all trials; prints each report, the table and the best configuration. Returns Ray Tune's ResultGrid.

    Raises ConfigError before anything starts, RuntimeError when no trial finished."""
    base = resolve(sweep)
    os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")  # relative model folders stay valid in a trial
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    shared = not any(key.split(".")[0] in START_SECTIONS for key in sweep.space)
    folder = runs.create(base, sweep.name)
    say(f"sweep folder {folder.path}")
    model = str(start_model(base, folder)) if shared else None
    # Coordinator and rollout workers of a trial live inside its reservation; replicas and learner reserve their own.
    cpus = 0.2 + base.rollout.workers * base.rollout.worker_cpus
    trainable = tune.with_parameters(trial, base=base.dump(), sweep=sweep.dump(), model=model)
    with cluster.ray_session():
        tuner = tune.Tuner(
            tune.with_resources(trainable, {"cpu": cpus}),
            param_space={key: domain(dimension) for key, dimension in sweep.space.items()},
            tune_config=tune.TuneConfig(
                metric=sweep.metric,
                mode=sweep.mode,
                num_samples=sweep.samples,
                max_concurrent_trials=sweep.max_concurrent,
                scheduler=tune.schedulers.ASHAScheduler(
                    time_attr="step",
                    max_t=max(base.steps, sweep.grace_steps),
                    grace_period=sweep.grace_steps,
                    reduction_factor=sweep.reduction_factor,
                ),
                search_alg=tune.search.BasicVariantGenerator(random_state=sweep.seed),
            ),
            run_config=tune.RunConfig(
                name="ray_tune", storage_path=str(folder.path), verbose=0, callbacks=[Reporter(sweep, say)]
            ),
        )
        results = tuner.fit()
    show(results, sweep, base, say)
    return results


class Reporter(tune.Callback):  # type: ignore[misc]
    """A line a report; deletes the application of a trial that ASHA stopped, which could not do it itself."""

    def __init__(self, sweep: SweepConfig, say: Any) -> None:
        self._sweep, self._say = sweep, say

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any) -> None:
        self._say(f"{trial.trial_id}  step {result['step']}  {self._sweep.metric} {result[self._sweep.metric]:.3f}")

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self._delete(trial)

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self._say(f"{trial.trial_id}  failed: see {trial.path}")
        self._delete(trial)

    def _delete(self, trial: Any) -> None:
        from ray import serve

        name = f"{self._sweep.name}-{trial.trial_id}"
        if name in serve.status().applications:
            serve.delete(name, _blocking=False)


def show(results: Any, sweep: SweepConfig, base: TrainConfig, say: Any) -> None:
    """A row a trial, best first; then the best trial's whole configuration. RuntimeError when none reported."""
    from rich.table import Table

    finished = [result for result in results if result.metrics and sweep.metric in result.metrics]
    errors = [str(result.error).strip().splitlines()[-1] for result in results if result.error]
    if not finished:
        raise RuntimeError(f"no trial of the sweep reported {sweep.metric}: {'; '.join(sorted(set(errors)))}")
    finished.sort(key=lambda result: result.metrics[sweep.metric], reverse=sweep.mode == "max")
    shown = Table(*sweep.space, "step", sweep.metric, "run", title=f"{sweep.name}: {len(results)} trials")
    for result in finished:
        values = [f"{result.config[key]:g}" if isinstance(result.config[key], float) else str(result.config[key])
                  for key in sweep.space]  # fmt: skip
        metrics = result.metrics
        shown.add_row(*values, str(metrics["step"]), f"{metrics[sweep.metric]:.3f}", Path(metrics["run"]).name)
    say(shown)
    for error in sorted(set(errors)):
        say(f"failed: {error}")
    best = finished[0]
    say(f"best trial, {sweep.metric} {best.metrics[sweep.metric]:.3f}, run folder {best.metrics['run']}")
    say(varied(base, {key: best.config[key] for key in sweep.space}).to_yaml())


def main() -> None:
    from training.cli import run

    sys.exit(run(["sweep", *sys.argv[1:]]))


if __name__ == "__main__":
    main()
