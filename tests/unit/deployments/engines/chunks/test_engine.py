"""A real small model on the CPU, real batches, real weight versions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from configs.base import ConfigError
from configs.policies import ChunkPolicy
from deployments.chunks.checkpoint import load, tiny_checkpoint
from deployments.chunks.predict import Predictor
from deployments.engines.chunks.engine import ChunkPolicyEngine
from deployments.errors import PolicyError
from deployments.protocol.act import ChunkResult
from deployments.protocol.generate import GenerateFailure
from deployments.weights.store import WeightStore
from tests.unit.deployments.chunks.cases import committed, request


def config(folder: Path, **changes: Any) -> ChunkPolicy:
    return ChunkPolicy(kind="chunks", checkpoint=str(folder), device="cpu", flow_steps=3, max_batch=8, **changes)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_checkpoint(tmp_path / "tiny")


@pytest.fixture
async def engine(folder: Path) -> AsyncIterator[ChunkPolicyEngine]:
    engine = ChunkPolicyEngine(config(folder))
    await engine.load()
    yield engine
    await engine.close()


def publish(store: WeightStore, version: int, folder: Path) -> Path:
    store.publish(version, load(folder).state_dict().items(), config_files=folder)
    return store.fetch(version).folder


async def test_clients_with_different_prompts_delays_and_cameras_share_passes_and_each_gets_its_own_answer(
    engine: ChunkPolicyEngine, folder: Path
) -> None:
    requests = [request(f"r{i}", i, committed=committed(6, i % 4, i) if i % 2 else None) for i in range(12)]
    answers = await asyncio.gather(*(engine.act(one) for one in requests))
    alone = Predictor(load(folder), flow_steps=3)
    for one, answer in zip(requests, answers, strict=True):
        assert isinstance(answer, ChunkResult)
        assert answer.request_id == one.request_id
        assert answer.actions.tobytes() == alone([one])[0].tobytes()
        assert answer.infer_ms > 0


async def test_a_request_that_cannot_be_answered_fails_alone(engine: ChunkPolicyEngine) -> None:
    good, bad = await asyncio.gather(
        engine.act(request("good")), engine.act(request("bad", state=np.full(3, np.nan, np.float32)))
    )
    assert isinstance(good, ChunkResult)
    assert isinstance(bad, GenerateFailure)
    assert (bad.request_id, bad.kind) == ("bad", "invalid_request")


async def test_a_new_version_answers_from_the_next_pass_on(
    engine: ChunkPolicyEngine, folder: Path, tmp_path: Path
) -> None:
    other = tiny_checkpoint(tmp_path / "other", seed=1)
    version = publish(WeightStore(str(tmp_path / "store")), 4, other)
    before = await engine.act(request())
    await engine.update(version, 4)
    after = await engine.act(request())
    assert isinstance(before, ChunkResult)
    assert isinstance(after, ChunkResult)
    assert (before.weight_version, after.weight_version) == (0, 4)
    assert after.actions.tobytes() == Predictor(load(other), flow_steps=3)([request()])[0].tobytes()


async def test_no_answer_mixes_two_versions(engine: ChunkPolicyEngine, folder: Path, tmp_path: Path) -> None:
    store = WeightStore(str(tmp_path / "store"))
    checkpoints = {v: tiny_checkpoint(tmp_path / str(v), seed=v) for v in range(4)}
    expected = {v: Predictor(load(path), flow_steps=3)([request()])[0].tobytes() for v, path in checkpoints.items()}
    folders = {v: publish(store, v, checkpoints[v]) for v in (1, 2, 3)}

    async def client() -> list[object]:
        return [await engine.act(request()) for _ in range(20)]

    async def learner() -> None:
        for v, path in folders.items():
            await engine.update(path, v)

    *answers, _ = await asyncio.gather(client(), client(), learner())
    for answer in (one for many in answers if many for one in many):
        assert isinstance(answer, ChunkResult)
        assert answer.actions.tobytes() == expected[answer.weight_version]
    assert engine.version == 3


async def test_an_older_version_changes_nothing(engine: ChunkPolicyEngine, folder: Path, tmp_path: Path) -> None:
    store = WeightStore(str(tmp_path / "store"))
    first = publish(store, 1, tiny_checkpoint(tmp_path / "a", seed=1))
    second = publish(store, 2, tiny_checkpoint(tmp_path / "b", seed=2))
    await engine.update(second, 2)
    answer = await engine.act(request())
    await engine.update(first, 1)
    again = await engine.act(request())
    assert isinstance(answer, ChunkResult)
    assert isinstance(again, ChunkResult)
    assert (again.weight_version, again.actions.tobytes()) == (2, answer.actions.tobytes())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"chunk_len": 12}, "chunk_len"),
        ({"model": {"width": 16, "heads": 2}}, "model"),
        ({"max_state_dim": 3}, "state"),
    ],
)
async def test_a_version_of_another_policy_is_refused_and_the_old_weights_answer(
    engine: ChunkPolicyEngine, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    before = await engine.act(request())
    other = publish(WeightStore(str(tmp_path / "store")), 1, tiny_checkpoint(tmp_path / "other", **changes))
    with pytest.raises(PolicyError, match=message) as refused:
        await engine.update(other, 1)
    assert refused.value.kind == "stale_weights"
    after = await engine.act(request())
    assert isinstance(before, ChunkResult)
    assert isinstance(after, ChunkResult)
    assert (after.weight_version, after.actions.tobytes()) == (0, before.actions.tobytes())
    assert engine.breaker.reason is None


async def test_a_version_with_values_that_are_not_finite_is_refused(engine: ChunkPolicyEngine, tmp_path: Path) -> None:
    model = load(tiny_checkpoint(tmp_path / "spoilt"))
    with torch.no_grad():
        model.state.bias[0] = float("nan")
    store = WeightStore(str(tmp_path / "store"))
    store.publish(1, model.state_dict().items())
    with pytest.raises(PolicyError, match=r"state\.bias holds values that are not finite"):
        await engine.update(store.fetch(1).folder, 1)
    assert engine.version == 0


async def test_statistics_travel_with_a_version(engine: ChunkPolicyEngine, tmp_path: Path) -> None:
    scaled = {
        "default": {
            "state": {"kind": "mean_std", "mean": [0.0] * 32, "std": [1.0] * 32},
            "action": {"kind": "mean_std", "mean": [0.0] * 7, "std": [4.0] * 7},
        }
    }
    other = tiny_checkpoint(tmp_path / "other", seed=0, statistics=scaled)  # the same weights
    before = await engine.act(request())
    await engine.update(publish(WeightStore(str(tmp_path / "store")), 1, other), 1)
    after = await engine.act(request())
    assert isinstance(before, ChunkResult)
    assert isinstance(after, ChunkResult)
    assert (after.actions == before.actions * 4).all()


async def test_an_engine_that_cannot_load_says_why(tmp_path: Path) -> None:
    engine = ChunkPolicyEngine(config(tmp_path / "nothing"))
    with pytest.raises(ConfigError, match=r"has no train_config\.json"):
        await engine.load()
    await engine.close()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
async def test_a_gpu_that_is_not_there_is_told_at_once(folder: Path) -> None:
    engine = ChunkPolicyEngine(config(folder).model_copy(update={"device": "gpu"}))
    with pytest.raises(ConfigError, match="sees no GPU"):
        await engine.load()
    await engine.close()


async def test_the_requests_that_it_holds_are_told_oldest_first(engine: ChunkPolicyEngine) -> None:
    asked = [asyncio.create_task(engine.act(request(f"r{i}", i))) for i in range(3)]
    await asyncio.sleep(0)
    assert [name.split("#")[0] for name in engine.held()] == ["r0", "r1", "r2"]
    assert engine.unfinished() == 3
    await asyncio.gather(*asked)
    assert engine.unfinished() == 0


async def test_its_device_is_told(engine: ChunkPolicyEngine) -> None:
    assert engine.device().name == "cpu"
    assert engine.device().memory_total_gb == 0.0


async def test_closing_twice_is_closing_once(engine: ChunkPolicyEngine) -> None:
    await engine.close()
    await engine.close()
    answer = await engine.act(request())
    assert isinstance(answer, GenerateFailure)
    assert answer.kind == "unavailable"
