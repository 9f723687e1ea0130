"""Runs GRPO in Ray Train's processes and reports each finished step."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import ray

from configs.base import UserError
from training.rollouts.session import Session
from training.run.loop import train_loop
from training.run.process import Place, RunSettings

logger = logging.getLogger("rayward")


Report = Callable[[int, dict[str, float]], None]  # called with (step, metrics)


class TrainingFailed(UserError):
    """The run ended before its last step; the message names the cause and how to resume."""


def train(session: Session, report: Report | None = None, base_version: int = 0) -> None:
    """Runs GRPO to the last step. `report(step, metrics)` is called for each finished step. Raises TrainingFailed."""
    for step, metrics in train_steps(session, base_version):
        if report is not None:
            report(step, metrics)


def train_steps(session: Session, base_version: int = 0) -> Iterator[tuple[int, dict[str, float]]]:
    """GRPO to the last step, in processes that do not wait for the caller: yields (step, metrics) of each finished one.
    Raises TrainingFailed."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    config = session.config
    learner = config.learner
    on_gpu = learner.gpus_per_worker > 0
    resources = {"CPU": learner.cpus_per_worker, **learner.resources}
    if on_gpu:
        resources["GPU"] = learner.gpus_per_worker
    trainer = TorchTrainer(
        _train_in_process,
        train_loop_config={"settings": RunSettings(session, base_version)},
        scaling_config=ScalingConfig(num_workers=learner.workers, use_gpu=on_gpu, resources_per_worker=resources),
        torch_config=TorchConfig(backend="nccl" if on_gpu else "gloo"),
        run_config=RunConfig(
            name="ray_train",
            storage_path=str(session.run.path),
            failure_config=FailureConfig(max_failures=learner.restarts),
        ),
    )
    outcome: list[BaseException] = []

    def fit() -> None:
        try:
            trainer.fit()
        except BaseException as error:  # carried to the caller's thread
            outcome.append(error)

    thread = threading.Thread(target=fit, name="ray-train", daemon=True)
    thread.start()
    following, heard = 0, time.monotonic()  # the first step that was not yielded
    while True:
        thread.join(timeout=0.3)
        ended = not thread.is_alive()
        finished = ray.get(session.coordinator.progress.remote(following))
        yield from finished
        if finished:
            following = finished[-1][0] + 1
            heard = time.monotonic()
        elif time.monotonic() - heard > config.tracking.stalled_after_s:
            heard = time.monotonic()
            waits = _waits(session.coordinator)
            logger.warning("no step for %g s: %s", config.tracking.stalled_after_s, waits)
        if ended:
            break
    given_up = ray.get(session.coordinator.given_up.remote())
    if outcome or given_up:
        cause = given_up or root_cause(outcome[0])
        raise TrainingFailed(
            f"training stopped: {cause}\nresume with: rayward train --resume {session.run.path}"
        ) from next(iter(outcome), None)


def _train_in_process(config: dict[str, RunSettings]) -> None:
    """Ray Train hands over nothing but a dict."""
    from ray import train as ray_train

    here = ray_train.get_context()
    place = Place(here.get_world_rank(), here.get_world_size(), here.get_local_world_size())
    train_loop(config["settings"], place)


def _waits(coordinator: Any) -> str:
    try:
        return str(ray.get(coordinator.waits_for.remote(), timeout=5.0))
    except ray.exceptions.GetTimeoutError:
        return "the coordinator does not answer"


def root_cause(error: BaseException) -> str:
    """The innermost message, without the layers that carried it."""
    failures = getattr(error, "worker_failures", None)
    if failures:
        error = next(iter(failures.values()))
    while True:
        inner = getattr(error, "cause", None) or error.__cause__
        if inner is None or inner is error:
            break
        error = inner
    return f"{type(error).__name__}: {error}"
