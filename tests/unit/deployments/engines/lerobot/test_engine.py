"""LeRobot's policies as chunk policies, around a package that stands in for LeRobot."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from configs.base import ConfigError
from configs.policies import ChunkPolicy
from deployments.engines.lerobot.engine import LeRobotEngine
from deployments.errors import PolicyError
from deployments.protocol.act import ChunkAnswer, ChunkResult, Committed
from deployments.protocol.generate import GenerateFailure
from tests.unit.deployments.engines.lerobot.cases import FRONT, HORIZON, PACKAGE, WRIST, lerobot_folder, request

Start = Callable[..., Awaitable[LeRobotEngine]]


@pytest.fixture
def lerobot(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(PACKAGE))
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "lerobot"]:
        del sys.modules[name]


def policy(folder: Path, **settings: Any) -> ChunkPolicy:
    return ChunkPolicy(kind="chunks", checkpoint=str(folder), device="cpu", max_batch=8, **settings)


@pytest.fixture
async def start(lerobot: None, tmp_path: Path) -> AsyncIterator[Start]:
    engines: list[LeRobotEngine] = []

    async def started(kind: str = "linear", **changes: Any) -> LeRobotEngine:
        engine = LeRobotEngine(policy(lerobot_folder(tmp_path / kind, kind, **changes)))
        engines.append(engine)
        await engine.load()
        return engine

    yield started
    for engine in engines:
        await engine.close()


def actions(answer: ChunkAnswer) -> Any:
    assert isinstance(answer, ChunkResult), answer
    return answer.actions


async def refusal(folder: Path, **settings: Any) -> str:
    engine = LeRobotEngine(policy(folder, **settings))
    with pytest.raises(ConfigError) as caught:
        await engine.load()
    await engine.close()
    return str(caught.value)


async def test_an_observation_becomes_a_chunk_in_the_robots_own_units(start: Start) -> None:
    engine = await start()

    answer = await engine.act(request(front=255, wrist=51, prompt="lift"))

    # Before the policy: state (4, 6) / 2 = (2, 3), images 1.0 and 0.2. Step t: 10 * ((2 + 10, 3 + 2) + 4 letters + t)
    first = np.array([160.0, 90.0])
    assert actions(answer) == pytest.approx(np.stack([first, first + 10, first + 20]), abs=1e-3)
    assert actions(answer).dtype == np.float32
    assert answer.weight_version == 0


async def test_what_the_policy_takes_and_gives_is_known_once_it_is_loaded(start: Start) -> None:
    described = (await start()).description

    shape = described.shape
    assert described.name == "lerobot linear"
    assert (shape.cameras, shape.resolution, shape.state_dim) == (2, (4, 6), 2)
    assert (shape.horizon, shape.action_dim, shape.max_delay, shape.statistics) == (HORIZON, 2, 0, ())


async def test_clients_share_a_pass_and_each_gets_its_own_answer(start: Start) -> None:
    engine = await start()
    asked = [request(f"r{i}", front=i * 20, wrist=255 - i, prompt="x" * i) for i in range(6)]

    together = await asyncio.gather(*map(engine.act, asked))
    alone = [await engine.act(one) for one in asked]

    for one, both in enumerate(zip(together, alone, strict=True)):
        assert both[0].request_id == f"r{one}"
        assert actions(both[0]) == pytest.approx(actions(both[1]), abs=1e-3)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"image_mask": np.array([True, False])}, f"image 1, of its camera {WRIST}"),
        ({"image_mask": np.array([False, True])}, f"image 0, of its camera {FRONT}"),
        ({"state": np.zeros(3, np.float32)}, r"a state of 2 finite numbers, got \[3\]"),
        ({"state": np.array([1, np.nan], np.float32)}, "a state of 2 finite numbers"),
        ({"images": np.zeros((2, 5, 6, 3), np.uint8)}, r"uint8 \[2, 4, 6, 3\]"),
        ({"committed": Committed(np.zeros((2, 2), np.float32), 1)}, "delay must be 0"),
        ({"statistics": "arm"}, "name none"),
    ],
)
async def test_what_the_policy_cannot_answer_fails_alone_and_names_what_it_wants(
    start: Start, changes: dict[str, Any], told: str
) -> None:
    engine = await start()

    good, bad = await asyncio.gather(engine.act(request("good")), engine.act(request("bad", **changes)))

    assert isinstance(good, ChunkResult)
    assert isinstance(bad, GenerateFailure)
    assert (bad.request_id, bad.kind) == ("bad", "invalid_request")
    with pytest.raises(AssertionError, match=told):
        actions(bad)


async def test_a_seed_fixes_what_a_policy_draws_whatever_else_is_asked(start: Start) -> None:
    engine = await start("drawing")

    alone = actions(await engine.act(request("a", noise_seed=5)))
    crowd = await asyncio.gather(
        engine.act(request("b")), engine.act(request("a", noise_seed=5)), engine.act(request("c", noise_seed=6))
    )

    assert actions(crowd[1]).tobytes() == alone.tobytes()
    assert (actions(crowd[2]) != alone).any()
    assert (actions(crowd[0]) != actions(await engine.act(request("b")))).any(), "without a seed, nothing is fixed"


async def test_a_policy_that_looks_back_sees_this_request_alone(start: Start) -> None:
    engine = await start("looking_back")

    first = actions(await engine.act(request(front=255)))
    await asyncio.gather(engine.act(request(front=10)), engine.act(request(front=90)))
    again = actions(await engine.act(request(front=255)))

    assert first[0] == pytest.approx([10 * 3 * (2 + 10), 10 * 3 * 3], abs=1e-3), "the observation, three times"
    assert again == pytest.approx(first)


async def test_a_replica_without_lerobot_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lerobot", None)

    told = await refusal(lerobot_folder(tmp_path))

    assert "LeRobot cannot be imported" in told
    assert "runtime_env.pip" in told
    assert "runtime_env.py_executable" in told


async def test_a_tensor_that_is_missing_does_not_stay_random(lerobot: None, tmp_path: Path) -> None:
    folder = lerobot_folder(tmp_path)
    save_file({"other": torch.zeros(1)}, folder / "model.safetensors")

    assert "layer.weight" in await refusal(folder)


async def test_a_policy_that_fails_on_every_observation_does_not_start(lerobot: None, tmp_path: Path) -> None:
    told = await refusal(lerobot_folder(tmp_path, "broken"))

    assert "(broken) does not answer an observation" in told
    assert "observation.language" in told


async def test_a_missing_file_is_named(lerobot: None, tmp_path: Path) -> None:
    folder = lerobot_folder(tmp_path)
    (folder / "policy_preprocessor.json").unlink()

    assert "has no policy_preprocessor.json" in await refusal(folder)


@pytest.mark.parametrize(
    ("settings", "named"),
    [({"weights_root": "s3://w"}, "weights_root"), ({"compile": True}, "compile"), ({"dtype": "bfloat16"}, "dtype")],
)
async def test_settings_without_an_effect_are_refused(
    lerobot: None, tmp_path: Path, settings: dict[str, Any], named: str
) -> None:
    assert f"which {named} does not apply to" in await refusal(lerobot_folder(tmp_path), **settings)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
async def test_a_gpu_that_is_not_there_is_told_at_once(lerobot: None, tmp_path: Path) -> None:
    engine = LeRobotEngine(policy(lerobot_folder(tmp_path)).model_copy(update={"device": "gpu"}))
    with pytest.raises(ConfigError, match="sees no GPU"):
        await engine.load()
    await engine.close()


async def test_no_version_is_taken_up(start: Start, tmp_path: Path) -> None:
    engine = await start()
    with pytest.raises(PolicyError, match="takes up no versions") as caught:
        await engine.update(tmp_path, 1)
    assert (caught.value.kind, engine.version) == ("stale_weights", 0)
