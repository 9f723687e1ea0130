"""A sweep: `python -m training.tune --config configs/sweep/NAME.yaml`. Ray Tune over whole runs, ASHA (arXiv
1810.05934) on the results in held-out situations.

What a trial owns, and what trials share:

- **Own**: the policy replicas (a Serve application with a name and an HTTP route of its own), weight store,
  coordinator, rollout workers, learner, run folder. A trial publishes one weight version per step, and a version is a
  number in one store: replicas that two trials shared would answer one of them with the other's weights.
- **Shared**: the Ray cluster, Serve's controller and HTTP port, and the start policy (built and warm-started once,
  before the first trial) unless the space varies something that it is made from; then each trial makes its own.

**Resumed** (`--resume FOLDER`): trials that ended stay as results.json has them; the others, failed ones too, continue
from the newest checkpoint of their run. Not by Tune's own restore, which forgets ASHA's rungs: the draws repeat by
their seed, and each trial first reports again what it had reported.

A failed trial is a row of the table and does not stop the others. Ctrl-C and SIGTERM end the running trials in order,
show what there is, and exit with 130; a second one ends at once.
"""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from ray import tune

from configs.serving import HttpConfig
from configs.sweep import Dimension, SweepConfig
from configs.training import TrainConfig
from deployments.storage import runs
from deployments.storage.ownership import owned_by_us
from training.cluster import application, ray_session
from training.run.start import start_model
from training.sweep.outcome import SweepFailed, SweepOutcome, TrialOutcome, read_results, summarize
from training.sweep.report import Progress, Say, show, write
from training.sweep.resume import keep_sweep
from training.sweep.trial import START_SECTIONS, Trial


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


class Asha(tune.schedulers.ASHAScheduler):
    """ASHA that stops no trial for what it reports again in a resumed sweep: that was decided when it was new, when
    other trials were there to compare with. Those reports fill the rungs."""

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        decision: str = super().on_trial_result(tune_controller, trial, result)
        return tune.schedulers.TrialScheduler.CONTINUE if result.get("replayed") else decision


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


def run_sweep(
    sweep: SweepConfig, base: TrainConfig, say: Say = print, resumed: runs.RunFolder | None = None
) -> SweepOutcome:
    """Runs all trials from `base` (`sweep.resolve()`), writes results.json and best.yaml after each report, shows the
    table. `resumed`: the folder of a sweep that was killed or stopped; what it has is kept.

    Raises SweepFailed when no trial reported, KeyboardInterrupt when a signal ended it (what there is was shown)."""
    folder = resumed or runs.create(base, sweep.name)
    with owned_by_us(folder.path):
        keep_sweep(folder, sweep)
        return _run_in(folder, sweep, base, say)


def _run_in(folder: runs.RunFolder, sweep: SweepConfig, base: TrainConfig, say: Say) -> SweepOutcome:
    name = f"{sweep.name}-{folder.path.name.rsplit('-', 1)[-1]}"
    before = read_results(folder.path / "results.json")
    kept = f", resumed; {sum(trial.decided for trial in before)} trials have ended" if before else ""
    say(f"sweep folder {folder.path}{kept}")
    model = shared_start_model(sweep, base, folder, say)
    with ray_session.ray_session(), ExitStack() as stack:
        # Here and not in the trials: two of them would race for it.
        application.start_serve(HttpConfig(port=base.serving.http_port))
        application.delete_applications(f"{name}-")  # of the killed sweep, on a cluster that outlived it
        stack.callback(application.delete_applications, f"{name}-")
        stack.callback(runs.remove_weights_of, name)
        interrupted = stack.enter_context(stop_signals())
        results = make_tuner(sweep, base, folder, name, model, interrupted, say, before).fit()
        outcome = summarize(sweep, folder.path, results, interrupted.is_set(), before)
    write(outcome, sweep, base)
    show(outcome, sweep, say)
    if outcome.interrupted:
        say(f"resume with: rayward sweep --resume {folder.path}")
        raise KeyboardInterrupt
    if outcome.best is None:
        errors = sorted({trial.error for trial in outcome.trials if trial.error})
        raise SweepFailed(f"no trial of the sweep reported {sweep.metric}: {'; '.join(errors)}")
    return outcome


def shared_start_model(sweep: SweepConfig, base: TrainConfig, folder: runs.RunFolder, say: Say) -> str | None:
    """The policy that all trials start from; None when the space varies something that it is made from."""
    if any(key.split(".")[0] in START_SECTIONS for key in sweep.space):
        return None
    if folder.start_model.is_dir():
        return str(folder.start_model)
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
    before: Sequence[TrialOutcome] = (),
) -> Any:
    os.environ["RAY_CHDIR_TO_TRIAL_DIR"] = "0"  # relative model folders stay valid in a trial
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"  # results.json and the runs' metrics.jsonl hold it all
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # the new one prints with verbose=0, too
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # Tune's own ends the loop and says that all went well
    shutil.rmtree(folder.path / "ray_tune", ignore_errors=True)  # a resumed sweep's: nothing of ours is in it
    known = {trial.trial: trial for trial in before}
    trainable = tune.with_parameters(Trial, base=base.dump(), name=name, model=model, before=known)
    return tune.Tuner(
        # For the trial's own process; what it starts reserves for itself.
        tune.with_resources(trainable, {"cpu": 0.1}),
        param_space={key: domain(dimension) for key, dimension in sweep.space.items()},
        tune_config=tune.TuneConfig(
            metric=sweep.metric,
            mode="max",
            num_samples=sweep.trials,
            scheduler=Asha(
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
            callbacks=[Progress(sweep, base, folder.path, name, say, before)],
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # a run writes its own
        ),
    )
