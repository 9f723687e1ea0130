"""A short run of the real loop: real replica, real rollouts, real learner, in seconds. What it found is its outcome."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray

from configs.base import UserError
from configs.training import TrainConfig
from deployments.storage import runs
from training.certify.local_actor import local_coordinator
from training.checks.alarms import FaultFound
from training.evaluation.examine import check_episodes
from training.learner.architecture import UnknownArchitecture
from training.learner.learner import NotFinite
from training.rollouts.session import Session
from training.run.loop import train_loop
from training.run.process import Place, RunSettings

# What a run raises by itself, without a check of training.checks, and the check's name.
OTHER_ERRORS: dict[type[Exception], str] = {UnknownArchitecture: "own forward", NotFinite: "finite numbers"}


FAILED = "(the run failed)"  # loudly, but by no check


@dataclass(frozen=True)
class Outcome:
    """What a short run ended with. `check` is empty where nothing was noticed; `steps` is how many it took."""

    check: str
    message: str
    steps: int
    seconds: float = 0.0


@dataclass(frozen=True)
class ShortRuns:
    """Plays short runs on the replicas of a session, one after the other."""

    session: Session
    settings: TrainConfig  # of every short run

    def play(
        self,
        model: Path,
        put_in: Callable[[str], AbstractContextManager[None]] | None = None,
        overrides: Sequence[str] = (),
        resume: bool = False,
        examined: int = 0,
    ) -> Outcome:
        """One run from a model folder with the architecture of the replicas. `examined`: how many answers the doctor
        looks at after a run without an alarm. `resume`: the fault is put in when the run goes on from a checkpoint."""
        began = time.perf_counter()
        config = TrainConfig.parse(self.settings.dump(), overrides)
        folder = runs.create(config)
        fault = nullcontext() if put_in is None else put_in(self.session.app)
        if resume:
            half = TrainConfig.parse(config.dump(), [f"steps={config.steps // 2}"])
            outcome = self._train(half, folder, model)
            if outcome.check:
                raise FaultyHarness(f"a run without a fault, before its resume: {outcome.message}")
        with fault:
            outcome = self._train(config, folder, model)
            if not outcome.check and examined:
                outcome = self._examine(config, folder, outcome, examined)
        return replace(outcome, seconds=time.perf_counter() - began)

    def _train(self, config: TrainConfig, folder: runs.RunFolder, model: Path) -> Outcome:
        """The loop to its last step, or to its first alarm."""
        with local_coordinator(config.dump(), str(model), self.session.app) as coordinator:
            session = Session(config, folder, model, self.session.weights_root, coordinator, self.session.app)
            try:
                train_loop(RunSettings(session), Place())
            except Exception as error:
                return Outcome(*_named(error), steps=_steps(coordinator))
            told = ray.get(coordinator.given_up.remote()) or ""
            return Outcome(_check_in(told), told, _steps(coordinator) if told else config.steps)

    def _examine(self, config: TrainConfig, folder: runs.RunFolder, trained: Outcome, turns: int) -> Outcome:
        """The doctor on what the run has made, by the replicas that it has trained with."""
        model, version = folder.final_model, self.session.store.latest() or 0
        with local_coordinator(config.dump(), str(model), self.session.app) as coordinator:
            first = config.evaluation.first_seed
            seeds = list(range(first, first + turns // 2))
            try:
                episodes = ray.get(coordinator.evaluate.remote(seeds, version))
                report = check_episodes(config, model, episodes, turns, version)
            except Exception as error:
                check, message = _named(error)
                return replace(trained, check=check, message=message)
        if report.healthy:
            return trained
        return replace(trained, check=_check_in(report.cause) or "doctor", message=report.cause)


class FaultyHarness(UserError):
    """Something went wrong that is no fault of a mutant: nothing is certified."""


def _steps(coordinator: Any) -> int:
    """The step that a run was in when it ended, counted from 1; 0 before the first."""
    done = ray.get(coordinator.progress.remote())
    begun = ray.get(coordinator.begun.remote())
    return done[-1][0] + 2 if done else int(begun > 0)


def _named(error: Exception) -> tuple[str, str]:
    """(check, message) of what a run raised; FAILED where that is no alarm. Raises what is no error of a run."""
    cause = getattr(error, "cause", None) or error
    if isinstance(cause, FaultFound):
        return cause.alarm.check, str(cause)
    for kind, check in OTHER_ERRORS.items():
        if isinstance(cause, kind):
            return check, str(cause)
    if isinstance(cause, ValueError) and "must be finite" in str(cause):
        return "finite numbers", str(cause)
    if isinstance(cause, UserError):
        return FAILED, str(cause)
    raise error


def _check_in(message: str) -> str:
    """The check that a message names, as an Alarm writes it."""
    found = re.search(r"check «(.+?)»", message)
    return found[1] if found else ""
