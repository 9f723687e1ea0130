from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from deployments.engines.base import Breaker
from deployments.engines.vllm.weights import UNTOUCHED, EngineWeights
from deployments.errors import PolicyError
from deployments.weights.push_steps import (
    AbortPush,
    FinishPush,
    OpenGroup,
    PushPart,
    StartPush,
    TransferInfo,
)

FOLDER = Path("versions/1")


class Worker:
    """WeightCalls with the rules of vLLM's worker: one open update, which a failing part ends and nothing else does."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.active = self.paused = False
        self.weights: list[object] = []
        self.version: int | None = None
        self.fails: Exception | None = None
        self.receiving, self.gate, self.resumed = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.gate.set()

    async def pause(self) -> None:
        self.paused = True
        self.resumed.clear()

    async def open_group(self, info: TransferInfo) -> None:
        self.calls.append("open_group")

    async def start(self) -> None:
        if self.active:
            raise RuntimeError("start_weight_update called while a weight update is already active")
        self.active = True

    async def receive(self, info: TransferInfo | list[TransferInfo]) -> None:
        if not self.active:
            raise RuntimeError("start_weight_update must be called before update_weights.")
        self.receiving.set()
        await self.gate.wait()
        if self.fails is not None:
            self.active = False
            raise self.fails
        self.weights.append(info)

    async def finish(self, version: int | None) -> None:
        if not self.active:
            raise RuntimeError("finish_weight_update called without a matching start_weight_update.")
        self.active = False
        self.version = self.version if version is None else version

    async def resume(self) -> None:
        self.paused = False
        self.resumed.set()


def engine(workers: int = 1) -> tuple[Worker, EngineWeights]:
    worker = Worker()
    return worker, EngineWeights(worker, Breaker(), workers)


async def test_a_pull_brings_the_version_and_generation_goes_on() -> None:
    worker, weights = engine()
    await weights.pull(FOLDER, 1)
    await weights.pull(FOLDER, 1)  # held already: nothing happens
    assert (weights.version, worker.version, worker.paused, len(worker.weights)) == (1, 1, False, 1)


async def test_a_version_that_is_refused_before_the_model_is_touched_leaves_the_engine_in_use() -> None:
    worker, weights = engine()
    worker.fails = RuntimeError(f"Call to collective_rpc method failed: version 1 was pruned {UNTOUCHED}")
    with pytest.raises(PolicyError, match="pruned") as failed:
        await weights.pull(FOLDER, 1)
    assert failed.value.kind == "stale_weights"
    assert (weights.breaker.reason, worker.paused, weights.version) == (None, False, 0)
    worker.fails = None
    await weights.pull(FOLDER, 2)
    assert weights.version == 2


@pytest.mark.parametrize("message", ["the worker holds parts of two versions", "CUDA error"])
async def test_any_other_failure_breaks_the_engine_and_no_token_comes_from_mixed_weights(message: str) -> None:
    worker, weights = engine()
    worker.fails = RuntimeError(message)
    with pytest.raises(PolicyError, match="half-way") as failed:
        await weights.pull(FOLDER, 1)
    assert failed.value.kind == "engine_failed"
    assert weights.breaker.reason is not None
    assert message in weights.breaker.reason
    assert worker.paused


async def test_of_several_workers_one_that_refuses_breaks_the_engine_because_another_may_have_loaded() -> None:
    worker, weights = engine(workers=2)
    worker.fails = RuntimeError(f"version 1 was pruned {UNTOUCHED}")
    with pytest.raises(PolicyError) as failed:
        await weights.pull(FOLDER, 1)
    assert failed.value.kind == "engine_failed"
    assert weights.breaker.reason is not None


async def test_a_pull_that_hangs_breaks_the_engine_at_its_limit() -> None:
    worker = Worker()
    worker.gate.clear()
    weights = EngineWeights(worker, Breaker(), pull_limit_s=0.001)
    with pytest.raises(PolicyError, match="half-way"):
        await weights.pull(FOLDER, 1)
    assert weights.breaker.reason is not None


async def test_a_push_pauses_generation_until_it_is_finished() -> None:
    worker, weights = engine()
    await weights.push(OpenGroup({"world_size": 2}))
    await weights.push(StartPush(3, deadline_s=300.0))
    assert worker.paused
    assert weights.paused
    await weights.push(PushPart(3, {"names": ["a"]}))
    await weights.push(PushPart(3, {"names": ["b"]}))
    await weights.push(FinishPush(3))
    assert (weights.version, worker.paused, weights.paused) == (3, False, False)
    assert worker.weights == [{"names": ["a"]}, {"names": ["b"]}]


async def test_a_pull_waits_for_the_push_that_is_under_way() -> None:
    worker, weights = engine()
    await weights.push(StartPush(3, deadline_s=300.0))
    pull = asyncio.create_task(weights.pull(FOLDER, 2))
    await weights.push(PushPart(3, {}))
    await weights.push(FinishPush(3))
    await pull
    assert (weights.version, len(worker.weights)) == (3, 1), "version 2 is not loaded over 3"


async def test_a_push_whose_learner_is_gone_ends_by_itself_and_the_old_weights_stay_in_use() -> None:
    worker, weights = engine()
    await weights.push(StartPush(3, deadline_s=0.001))
    await worker.resumed.wait()
    assert weights.breaker.reason is None
    with pytest.raises(PolicyError, match="has ended"):
        await weights.push(PushPart(3, {}))
    await weights.pull(FOLDER, 4)
    assert weights.version == 4


async def test_a_push_whose_learner_is_gone_after_a_part_breaks_the_engine() -> None:
    worker, weights = engine()
    broken = asyncio.get_running_loop().create_future()
    weights.breaker.listen(broken.set_result)
    worker.gate.clear()  # the worker waits in a collective that the learner will never join
    await weights.push(StartPush(3, deadline_s=0.01))
    part = asyncio.create_task(weights.push(PushPart(3, {})))
    assert "not finished within 0.01 s" in await broken
    assert worker.paused
    worker.gate.set()
    with pytest.raises(PolicyError):
        await part


async def test_a_push_takes_the_place_of_an_earlier_one_that_nobody_finished() -> None:
    worker, weights = engine()
    await weights.push(StartPush(3, deadline_s=300.0))
    await weights.push(StartPush(4, deadline_s=300.0))
    await weights.push(PushPart(4, {}))
    await weights.push(FinishPush(4))
    assert (weights.version, weights.breaker.reason) == (4, None)
    await weights.push(StartPush(5, deadline_s=300.0))
    await weights.push(PushPart(5, {}))
    with pytest.raises(PolicyError, match="half-way"):
        await weights.push(StartPush(6, deadline_s=300.0))
    assert worker.paused


async def test_an_aborted_push_of_which_nothing_arrived_changes_nothing() -> None:
    worker, weights = engine()
    await weights.push(StartPush(3, deadline_s=300.0))
    await weights.push(AbortPush(3))
    assert (worker.paused, worker.active, weights.breaker.reason, weights.version) == (False, False, None, 0)
    await weights.push(AbortPush(3))  # told twice


async def test_a_push_aborted_after_a_part_breaks_the_engine() -> None:
    worker, weights = engine()
    await weights.push(StartPush(3, deadline_s=300.0))
    await weights.push(PushPart(3, {}))
    await weights.push(AbortPush(3))
    assert weights.breaker.reason is not None
    assert worker.paused


async def test_a_step_whose_caller_is_cancelled_is_done_to_its_end() -> None:
    worker, weights = engine()
    worker.gate.clear()
    await weights.push(StartPush(3, deadline_s=300.0))
    part = asyncio.create_task(weights.push(PushPart(3, {"names": ["w"]})))
    await worker.receiving.wait()
    part.cancel()
    with pytest.raises(asyncio.CancelledError):
        await part
    worker.gate.set()
    await weights.push(FinishPush(3))
    assert (weights.version, worker.version, worker.weights) == (3, 3, [{"names": ["w"]}])


async def test_a_part_of_a_push_that_nobody_started_is_an_error_of_the_caller() -> None:
    _, weights = engine()
    with pytest.raises(PolicyError, match="no push of version 3 was started here") as failed:
        await weights.push(PushPart(3, {}))
    assert failed.value.kind == "invalid_request"
