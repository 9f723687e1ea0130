"""The training loop, on one screen."""

from __future__ import annotations

import time

from training.run.process import Place, RunSettings, TrainingProcess


def train_loop(settings: RunSettings, place: Place) -> None:
    """One training process. Consumes: batches of the coordinator. Waits for: the step's groups. Unblocked by: their
    completion or RolloutFailed. Stops when: `steps` are done; a checkpoint lets another process go on from there."""
    run = TrainingProcess(settings, place)
    with run.told_once():
        for step in range(run.start(), run.config.steps):
            began = time.perf_counter()
            batch = run.next_batch(step)
            metrics = run.update(batch)
            metrics |= run.publish(step + 1)
            metrics |= run.maybe_evaluate(step + 1)
            run.announce(step + 1)
            run.log(step, metrics | {"train/step_s": time.perf_counter() - began})
            run.maybe_checkpoint(step + 1)
        run.finish()
