"""Real training of a small policy for seconds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from configs.base import ConfigError
from configs.bc import BCConfig
from deployments.chunks.checkpoint import load, untrained
from deployments.chunks.description import MeanStd
from deployments.chunks.model import FlowPolicy
from deployments.chunks.predict import Predictor
from deployments.protocol.act import ChunkRequest, Committed
from training.imitation.chunks import TrainingDiverged, clone, describe, train
from training.imitation.robots import closed_loop, demonstrations

SMALL = {
    "table": {"side": 16, "objects": 1},
    "model": {"width": 32, "heads": 2, "encoder_layers": 1, "expert_layers": 1},
    "demonstrations": {"episodes": 8},
    "chunk_len": 8,
    "max_delay": 3,
    "evaluation": {"episodes": 8, "execute_steps": 4, "flow_steps": 4},
    "training": {"steps": 20, "batch_size": 16, "warmup_steps": 5},
}


def config(output: Path, *overrides: str) -> BCConfig:
    return BCConfig.parse({**SMALL, "output": str(output)}, overrides)


def test_cloning_writes_a_checkpoint_and_tells_success_before_and_after(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    result = clone(config(tmp_path / "reach"), lambda step, steps, loss: told.append((step, steps)))
    assert told == [(20, 20)]
    assert 0.0 <= result.untrained.value <= 1.0
    assert 0.0 <= result.trained.value <= 1.0
    description = load(tmp_path / "reach").description
    assert (description.chunk_len, description.max_delay, description.action_dim) == (8, 3, 2)
    assert description.resolution == (16, 16)


def test_an_overfitted_policy_reaches_and_goes_on_from_what_is_committed(tmp_path: Path) -> None:
    settings = config(
        tmp_path, "demonstrations.keep_every=1", "training.steps=400", "training.batch_size=64", "training.lr=3e-3"
    )
    shown = demonstrations(settings)
    model = untrained(describe(settings, shown))
    losses: list[float] = []
    assert _reached(model, settings) <= 0.25

    last = train(model, shown, settings, lambda step, steps, loss: losses.append(loss))

    assert last == losses[-1]
    assert last < 0.1 * losses[0]
    assert _reached(model, settings) >= 0.75
    expected = shown.chunks_H[0]
    request = ChunkRequest("r", shown.images[:1], np.ones(1, np.bool_), shown.states[0], shown.prompts[0])
    [chunk] = Predictor(model, flow_steps=8)([replace(request, committed=Committed(expected[:3], 3))])
    assert chunk[:3].tobytes() == expected[:3].tobytes()
    assert np.linalg.norm(chunk[3] - expected[3]) < 0.15, "no jump behind what was committed; the table is 2 wide"


def _reached(model: FlowPolicy, settings: BCConfig) -> float:
    """Success on the tables of the demonstrations."""
    predict = Predictor(model, flow_steps=8)
    return closed_loop(predict, settings.evaluation, settings.table, "train").value


def test_the_same_seed_trains_the_same_policy(tmp_path: Path) -> None:
    weights = []
    for name in ("a", "b"):
        clone(config(tmp_path / name, "training.steps=3", "evaluation.episodes=1"))
        weights.append((tmp_path / name / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]


def test_the_statistics_are_those_of_the_demonstrations(tmp_path: Path) -> None:
    settings = config(tmp_path)
    shown = demonstrations(settings)
    statistics = describe(settings, shown).statistics["reach"]
    assert isinstance(statistics.state, MeanStd)
    np.testing.assert_allclose(statistics.state.mean, shown.states.mean(0), rtol=1e-4, atol=1e-5)
    assert isinstance(statistics.action, MeanStd)
    np.testing.assert_allclose(statistics.action.std, shown.chunks_H.reshape(-1, 2).std(0), rtol=1e-4)


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="is no model folder"):
        clone(config(tmp_path, "training.steps=1"))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_the_arm_is_cloned_into_a_policy_of_its_state_and_seven_numbers(tmp_path: Path) -> None:
    pytest.importorskip("mujoco")
    few = ("demonstrations.episodes=2", "training.steps=2", "evaluation.episodes=2")
    table = {"kind": "arm", "task": "pick", "side": 16, "max_steps": 4}
    clone(BCConfig.parse({**SMALL, "table": table, "output": str(tmp_path / "arm")}, few))
    description = load(tmp_path / "arm").description
    assert (description.name, description.action_dim, description.shape.state_dim) == ("arm", 7, 16)
    assert list(description.statistics) == ["arm"]


def test_a_training_that_diverges_ends_with_its_step_and_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(TrainingDiverged, match=r"step \d+: the loss is (nan|inf).*lower training\.lr"):
        clone(config(tmp_path / "policy", "training.lr=1e18", "training.warmup_steps=0"))
    assert not (tmp_path / "policy").exists()
