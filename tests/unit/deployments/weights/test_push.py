from __future__ import annotations

import pytest

from deployments.weights.push import PUSH_DEADLINE_S, PushClient
from deployments.weights.push_steps import AbortPush, FinishPush, OpenGroup, PushPart, PushStep, StartPush


class Engines:
    """A Control that keeps what it was told; `fails` is the type of the step that does not work."""

    def __init__(self, fails: type | None = None) -> None:
        self.told: list[PushStep] = []
        self.fails = fails

    def push(self, step: PushStep) -> None:
        self.told.append(step)
        if self.fails is not None and isinstance(step, self.fails):
            raise RuntimeError("a replica died")


def test_what_vllms_trainer_calls_becomes_steps_that_name_the_version() -> None:
    engines = Engines()
    client = PushClient(engines)
    client.version = 4
    client.init_weight_transfer_engine({"world_size": 2})
    client.start_weight_update()
    client.update_weights({"names": ["w"]})
    client.finish_weight_update()
    client.abort()  # nothing to abort any more
    assert engines.told == [
        OpenGroup({"world_size": 2}),
        StartPush(4, PUSH_DEADLINE_S),
        PushPart(4, {"names": ["w"]}),
        FinishPush(4),
    ]


@pytest.mark.parametrize("fails", [StartPush, PushPart, FinishPush])
def test_a_push_that_fails_at_any_step_is_aborted_so_that_the_engines_go_on(fails: type) -> None:
    engines = Engines(fails)
    client = PushClient(engines)
    client.version = 4

    def push() -> None:
        client.start_weight_update()
        client.update_weights({})
        client.finish_weight_update()

    with pytest.raises(RuntimeError, match="a replica died"):
        push()
    client.abort()
    assert engines.told[-1] == AbortPush(4)


def test_a_failure_to_abort_does_not_hide_why_the_push_failed() -> None:
    client = PushClient(Engines(AbortPush))
    client.start_weight_update()
    client.abort()


def test_each_replica_joins_the_group_with_ranks_of_its_own() -> None:
    first, other = OpenGroup({"rank_offset": 1, "world_size": 5}), OpenGroup({"packed": True})
    assert [first.of_replica(rank, gpus=2).info["rank_offset"] for rank in range(2)] == [1, 3]
    assert other.of_replica(3, gpus=2) == other


@pytest.mark.parametrize(("version", "deadline_s"), [(-1, 1.0), (0, 0.0), (0, float("nan"))])
def test_a_push_without_a_version_or_a_deadline_is_refused(version: int, deadline_s: float) -> None:
    with pytest.raises(ValueError, match="version >= 0 and a deadline_s > 0"):
        StartPush(version, deadline_s)
