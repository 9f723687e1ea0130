"""The chunk replica around a real small engine: no Ray is started."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.policies import ChunkPolicy
from configs.serving import ServeConfig
from deployments.acting.act import Acting
from deployments.chunks.checkpoint import load, tiny_checkpoint
from deployments.chunks.predict import Predictor
from deployments.chunks.transforms import cameras
from deployments.engines.chunks.engine import ChunkPolicyEngine
from deployments.errors import PolicyError
from deployments.protocol.act import ActRequest, ChunkAnswer, ChunkRequest, ChunkResult, Observation
from deployments.protocol.generate import GenerateFailure
from deployments.replicas import chunks
from deployments.replicas.chunks import ChunkReplica
from deployments.weights.store import WeightStore
from tests.unit.deployments.chunks.cases import committed, request
from tests.unit.deployments.replicas.slow import SlowClock

pytestmark = pytest.mark.filterwarnings("ignore:coroutine 'ChunkReplica.__del__' was never awaited")


class Watched(ChunkPolicyEngine):
    """The real engine; `asked` counts, and nothing is answered until `answering` is set."""

    def __init__(self, config: ChunkPolicy) -> None:
        super().__init__(config)
        self.asked: list[str] = []
        self.answering, self.arrived = asyncio.Event(), asyncio.Event()
        self.answering.set()

    async def act(self, request: ChunkRequest) -> ChunkAnswer:
        self.asked.append(request.request_id)
        self.arrived.set()
        await self.answering.wait()
        return await super().act(request)


Start = Callable[..., Awaitable[tuple[ChunkReplica, Watched]]]


@pytest.fixture
def store(tmp_path: Path) -> WeightStore:
    return WeightStore(str(tmp_path / "store"))


@pytest.fixture
async def start(store: WeightStore, tmp_path: Path) -> AsyncIterator[Start]:
    opened: list[ChunkReplica] = []

    async def started(**settings: Any) -> tuple[ChunkReplica, Watched]:
        config = ChunkPolicy(
            kind="chunks",
            checkpoint=str(tiny_checkpoint(tmp_path / "tiny")),
            weights_root=store.root,
            device="cpu",
            flow_steps=2,
            **settings,
        )
        engines: list[Watched] = []

        def start_engine(config: ChunkPolicy) -> Watched:
            engines.append(Watched(config))
            return engines[0]

        replica: Any = object.__new__(ChunkReplica)  # as Serve does: its constructor is awaited
        await replica.__init__(config.model_dump(mode="json"), start_engine)
        opened.append(replica)
        return replica, engines[0]

    yield started
    for replica in opened:
        await replica.__del__()


class Replicas:
    """`Chunks` around one replica, as a handle would be."""

    def __init__(self, replica: ChunkReplica) -> None:
        self.shape = replica.shape
        self._replica = replica

    async def __call__(self, asked: ChunkRequest) -> ChunkResult:
        answer = await self._replica.act(asked)
        if isinstance(answer, GenerateFailure):
            raise PolicyError(answer.kind, answer.message, answer.request_id)
        return answer


async def test_a_robot_is_answered_through_acting_with_what_the_model_says_of_its_frames(
    start: Start, tmp_path: Path
) -> None:
    replica, _ = await start()
    acting = Acting(
        ServeConfig.model_construct(policies=[replica.config]), {}, {replica.config.name: Replicas(replica)}
    )
    frame = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    state = np.arange(3, dtype=np.float32)
    asked = ActRequest("1", Observation((frame,), "lift it", state), "robot", time.time() + 60, noise_seed=5)

    told = await acting.act(None, asked)
    described = await acting.described(None, time.time() + 60)
    frozen = await acting.act(None, dataclasses.replace(asked, request_id="2", committed=committed(6, 3)))

    images, mask = cameras([frame], 2, (16, 16))
    expected = ChunkRequest("1", images, mask, state, "lift it", noise_seed=5)
    assert told.actions.tobytes() == Predictor(load(tmp_path / "tiny"), flow_steps=2)([expected])[0].tobytes()
    assert (described.horizon, described.action_dim, described.cameras) == (*told.actions.shape, 2)
    assert frozen.actions[:3] == pytest.approx(committed(6, 3).actions[:3])


async def test_a_request_that_is_sent_again_has_the_same_answer_and_is_computed_once(start: Start) -> None:
    replica, engine = await start()
    asked = request("r", noise_seed=None)
    answers = [*await asyncio.gather(replica.act(asked), replica.act(asked)), await replica.act(asked)]
    assert len({answer.actions.tobytes() for answer in answers if isinstance(answer, ChunkResult)}) == 1
    assert all(isinstance(answer, ChunkResult) for answer in answers)
    assert engine.asked == ["r"]


async def test_the_same_id_with_another_observation_is_another_question(start: Start) -> None:
    """A client that always sends the same id would be stuck with its first action."""
    replica, engine = await start()
    first = await replica.act(request("r", seed=1))
    second = await replica.act(request("r", seed=2))
    assert isinstance(first, ChunkResult)
    assert isinstance(second, ChunkResult)
    assert (first.actions != second.actions).any()
    assert engine.asked == ["r", "r"]


async def test_requests_without_an_id_are_all_answered(start: Start) -> None:
    replica, engine = await start()
    await replica.act(request("", seed=1))
    await replica.act(request("", seed=1))
    assert engine.asked == ["", ""]


async def test_a_request_waits_for_the_version_that_it_names(start: Start, store: WeightStore, tmp_path: Path) -> None:
    replica, _ = await start()
    other = tiny_checkpoint(tmp_path / "other", seed=5)
    store.publish(2, load(other).state_dict().items())
    answer = await replica.act(request("r", min_weight_version=2))
    assert isinstance(answer, ChunkResult)
    assert answer.weight_version == 2
    expected = Predictor(load(other), flow_steps=2)([request("r")])[0]
    assert answer.actions.tobytes() == expected.tobytes()


async def test_a_replica_starts_with_the_newest_version(start: Start, store: WeightStore, tmp_path: Path) -> None:
    store.publish(7, load(tiny_checkpoint(tmp_path / "other", seed=5)).state_dict().items())
    replica, _ = await start()
    assert (await replica.status())["weight_version"] == 7


async def test_a_version_that_never_comes_is_told_within_the_deadline(start: Start) -> None:
    replica, engine = await start()
    answer = await replica.act(request("r", min_weight_version=9, deadline_s=0.05))
    assert isinstance(answer, GenerateFailure)
    assert answer.kind in ("stale_weights", "deadline_exceeded")
    assert engine.asked == []


async def test_a_request_that_arrives_after_its_deadline_is_not_begun(start: Start) -> None:
    replica, engine = await start()
    answer = await replica.act(request("r", deadline_unix_s=time.time() - 1.0))
    assert isinstance(answer, GenerateFailure)
    assert answer.kind == "deadline_exceeded"
    assert engine.asked == []


async def test_an_abandoned_request_ends_and_its_client_may_ask_again_under_the_same_id(start: Start) -> None:
    replica, engine = await start()
    engine.answering.clear()
    left = asyncio.create_task(replica.act(request("r")))
    await engine.arrived.wait()
    await replica.abandon(["r", "unknown"])
    answer = await left
    assert isinstance(answer, GenerateFailure)
    assert answer.kind == "cancelled"
    engine.answering.set()
    assert isinstance(await replica.act(request("r")), ChunkResult)


async def test_abandoning_the_first_try_does_not_end_the_second(start: Start) -> None:
    replica, engine = await start()
    engine.answering.clear()
    first = asyncio.create_task(replica.act(request("r")))
    await engine.arrived.wait()
    second = asyncio.create_task(replica.act(request("r")))
    await asyncio.sleep(0)
    await replica.abandon(["r"])
    engine.answering.set()
    assert isinstance(await first, GenerateFailure)
    assert isinstance(await second, ChunkResult)
    assert engine.asked == ["r"], "the second took over the first one's work"


async def test_a_request_that_cannot_be_answered_is_a_failure_with_its_id(start: Start) -> None:
    replica, _ = await start()
    answer = await replica.act(request("r", statistics="leg"))
    assert isinstance(answer, GenerateFailure)
    assert (answer.request_id, answer.kind) == ("r", "invalid_request")


async def test_the_status_tells_what_a_health_check_asks(start: Start) -> None:
    replica, _ = await start(name="arm")
    status = await replica.status()
    assert (status["policy"], status["model"], status["device"]) == ("arm", "tiny chunk policy", "cpu")
    assert (status["gpu_memory_used_gb"], status["gpu_memory_total_gb"]) == (0.0, 0.0)
    await replica.check_health()
    assert await replica.served() == replica.config


async def test_what_would_wait_in_vain_is_refused_and_asks_no_engine(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One seat, answers of 10 s, one request in the engine: the next one would take 20 s."""
    clock = SlowClock(chunks, monkeypatch)
    replica, engine = await start(max_batch=1)
    await clock.teach(lambda name: replica.act(request(name)), engine.arrived, engine.answering)
    staying = asyncio.create_task(replica.act(request("stays")))
    await engine.arrived.wait()
    refused = await replica.act(request("hurried", deadline_s=20.0))
    assert isinstance(refused, GenerateFailure)
    assert (refused.kind, refused.retry_after_s) == ("overloaded", 20.0)
    assert "hurried" not in engine.asked
    patient = asyncio.create_task(replica.act(request("patient", deadline_s=60.0)))
    engine.answering.set()
    assert all(isinstance(answer, ChunkResult) for answer in await asyncio.gather(staying, patient))
