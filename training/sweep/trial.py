"""One trial of a sweep: a whole run with replicas, store and learner of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ray import tune

from configs.sweep import varied
from configs.training import TrainConfig
from deployments.storage import runs
from deployments.storage.ownership import owned_by_us
from training.rollouts.session import open_session
from training.run.driver import train_steps
from training.run.start import start_model

# The start policy is made from these sections.
START_SECTIONS = ("model", "env", "warmstart", "seed")


class Trial(tune.Trainable):
    """One run. `step` trains until the next evaluation.

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
        self._owned.enter_context(owned_by_us(self._run.path))
        model = Path(self._model) if self._model else start_model(self._run_config, self._run)
        session = self._owned.enter_context(
            open_session(self._run_config, self._run, model, self._name, route=f"/{self._name}")
        )
        return train_steps(session)

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
