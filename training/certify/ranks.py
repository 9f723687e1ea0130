"""Updates of two ranks, each in a process of its own, on batches that were really played."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import ray

from configs.training import TrainConfig
from training.certify.short_run import Outcome
from training.checks.agreement import Tolerance
from training.checks.updates import update_alarms
from training.types import Batch

WORLD = 2
ANSWER_S = 120.0


@ray.remote(num_cpus=0)
class Rank:
    """One of the ranks; they meet through a file."""

    def __init__(self, rank: int, meeting: str) -> None:
        import torch

        torch.set_num_threads(1)
        torch.distributed.init_process_group("gloo", f"file://{meeting}", rank=rank, world_size=WORLD)
        self._rank = rank

    def update(
        self, config: dict[str, Any], model: str, batch: Batch, fault: Callable[[], AbstractContextManager[None]] | None
    ) -> tuple[str, str]:
        """(check, message) of the first alarm of one update, both empty without one."""
        from training.learner.learner import Learner
        from training.learner.settings import LearnerSettings

        settings = LearnerSettings.of(TrainConfig.model_validate(config), model)
        with nullcontext() if fault is None else fault():
            learner = Learner(settings, self._rank, WORLD)
            learner.update(batch)
        if learner.record is None:
            return "", ""
        alarm = next(update_alarms(learner.record, Tolerance.between("float32", "float32")), None)
        return (alarm.check, alarm.message) if alarm else ("", "")


class Ranks:
    """The ranks of one certificate, and the batches that they learn from: one for each rank."""

    def __init__(self, actors: Sequence[Any], config: TrainConfig, model: Path, shares: Sequence[Batch]) -> None:
        self._actors, self._config, self._model, self._shares = actors, config, model, shares

    def update(self, fault: Callable[[], AbstractContextManager[None]] | None = None) -> Outcome:
        """One update of both ranks, with the fault in both."""
        calls = [
            actor.update.remote(self._config.dump(), str(self._model), share, fault)
            for actor, share in zip(self._actors, self._shares, strict=True)
        ]
        found = ray.get(calls, timeout=ANSWER_S)
        check, message = next((each for each in found if each[0]), ("", ""))
        return Outcome(check, message, steps=1)


@contextmanager
def ranks_of(config: TrainConfig, model: Path, shares: Sequence[Batch], folder: Path) -> Iterator[Ranks]:
    """`config`: its learner has as many workers as there are shares. `folder`: where they meet."""
    folder.mkdir(parents=True, exist_ok=True)
    actors = [Rank.remote(rank, str(folder / "ranks")) for rank in range(WORLD)]  # type: ignore[attr-defined]
    try:
        yield Ranks(actors, config, model, shares)
    finally:
        for actor in actors:
            ray.kill(actor)
