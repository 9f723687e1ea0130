"""With which weight version a run starts: the first answers must come from its own policy. And what becomes of tokens
that are lost on their way to the learner (Ray is a stand-in)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import ray
from ray.exceptions import ObjectLostError

from configs.training import TrainConfig
from training.checks.alarms import Alarm, FaultFound
from training.checks.failures import EnvironmentFailed, FaultyRollout
from training.rollouts import batch
from training.rollouts.batch import Share, plan, share_of
from training.rollouts.packed import pack
from training.run.process import FirstVersion, TrainingProcess, first_version
from training.types import Episode, Group, Task, Turn


@pytest.mark.parametrize(
    ("step", "base", "latest", "replicas_hold_start", "expected"),
    [
        (0, 0, None, True, FirstVersion(0, publish=False)),  # replicas of its own, fresh
        (0, 0, None, False, FirstVersion(1, publish=True)),  # joined: they serve some other model as version 0
        (0, 0, 7, False, FirstVersion(8, publish=True)),  # joined: an earlier run published up to 7
        (0, 2, 2, True, FirstVersion(3, publish=True)),  # after an evaluation published version 2
        (5, 0, None, True, FirstVersion(0, publish=True)),  # resumed with a fresh store: version 5
        (5, 0, 9, True, FirstVersion(5, publish=True)),  # restarted from step 5 after version 9: version 10
    ],
    ids=["own", "joined", "joined after another", "after an evaluation", "resumed", "restarted"],
)
def test_the_first_version_is_above_all_published_ones_and_is_published_unless_the_replicas_hold_it(
    step: int, base: int, latest: int | None, replicas_hold_start: bool, expected: FirstVersion
) -> None:
    assert first_version(step, base, latest, replicas_hold_start) == expected


LOST = ObjectLostError("0" * 56, None, "")


class Remote:
    def __init__(self, call: Any) -> None:
        self.remote = call


class Coordinator:
    """Gives the same step again and again; what is replayed is there the next time."""

    def __init__(self, lost: int | None = None) -> None:
        self.lost = lost
        self.replayed: list[tuple[int, list[int]]] = []
        self.reason: str | None = None
        self.next_batch, self.replay, self.give_up = Remote(self._share), Remote(self._replay), Remote(self._give_up)

    def _share(self, step: int, rank: int, world: int) -> Share:
        packed = [pack(group(index), {}) for index in range(2)]
        samples = [LOST if index == self.lost else samples for index, (_, samples) in enumerate(packed)]
        planned = plan([summary for summary, _ in packed], TrainConfig().algorithm, world)
        return share_of(rank, planned, samples, step, {})

    def _replay(self, step: int, lost: list[int]) -> None:
        self.replayed.append((step, lost))
        self.lost = None

    def _give_up(self, reason: str) -> None:
        self.reason = reason


def group(index: int) -> Group:
    task = Task("e", 0, index)
    turn = [Turn((1,), (2,), (-0.1,), 0, reward) for reward in (0.0, 1.0)]
    return Group(task, tuple(Episode(task, sibling, (turn[sibling],), "completed") for sibling in range(2)))


def get(reference: Any) -> Any:
    if isinstance(reference, list):
        return [get(each) for each in reference]
    if isinstance(reference, Exception):
        raise reference
    return reference


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> TrainingProcess:
    monkeypatch.setattr(ray, "get", get)
    process = object.__new__(TrainingProcess)
    process.config, process.rank, process.world = TrainConfig(), 0, 1
    return process


def test_a_group_whose_tokens_are_lost_is_played_again(process: TrainingProcess) -> None:
    process.coordinator = Coordinator(lost=1)
    batch = process.next_batch(3)
    assert process.coordinator.replayed == [(3, [1])]
    assert len(batch.samples) == 4


def test_ranks_that_have_agreed_on_a_batch_do_not_change_it_behind_each_other(process: TrainingProcess) -> None:
    process.coordinator, process.world = Coordinator(lost=0), 2
    with pytest.raises(ObjectLostError):
        process.next_batch(3)
    assert process.coordinator.replayed == []


def test_a_failed_environment_is_told_and_not_raised_so_that_nothing_is_started_again(process: TrainingProcess) -> None:
    process.coordinator = Coordinator()
    with process.told_once():
        raise EnvironmentFailed("tictactoe seed 5: broken level")
    assert process.coordinator.reason == "EnvironmentFailed: tictactoe seed 5: broken level"


def test_any_other_failure_is_raised(process: TrainingProcess) -> None:
    process.coordinator = Coordinator()
    with pytest.raises(OSError, match="disk"), process.told_once():
        raise OSError("disk")
    assert process.coordinator.reason is None


def test_an_alarm_of_a_check_ends_the_run_and_is_told_once(process: TrainingProcess) -> None:
    process.coordinator = Coordinator()
    with process.told_once():
        raise FaultyRollout(Alarm("sibling starts", "they began differently"))
    assert process.coordinator.reason is not None
    assert "check «sibling starts»: they began differently" in process.coordinator.reason


def test_a_batch_with_the_advantages_of_another_group_is_refused(
    process: TrainingProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    process.coordinator = Coordinator()
    assert process.next_batch(3).metrics["train/alarms_total"] == 0
    original = batch._places
    monkeypatch.setattr(
        batch, "_places", lambda group, index, advantages, *rest: original(group, index, advantages[::-1], *rest)
    )
    with pytest.raises(FaultFound, match="check «advantages»"):
        process.next_batch(3)


def test_an_alarm_is_counted_and_the_run_goes_on_where_it_is_asked_to(
    process: TrainingProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    process.config = TrainConfig(on_alarm="warn")
    process.coordinator = Coordinator()
    monkeypatch.setattr(process, "learner", Learner(steps_done=4), raising=False)
    metrics = process.update(replace(process.next_batch(3), step=3))
    assert metrics["train/alarms_total"] == 1


class Learner:
    """Takes any batch."""

    def __init__(self, steps_done: int) -> None:
        self.steps_done, self.record = steps_done, None

    def update(self, batch: Any) -> dict[str, float]:
        return {}
