"""The learner on a GPU gives the CPU's numbers, and bfloat16 stays near them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from configs.models import ModelConfig, TinyModel
from configs.rollouts import EnvConfig
from configs.training import AlgorithmConfig, LearnerConfig, OptimizerConfig
from training.imitation import tiny
from training.learner.learner import Learner
from training.learner.settings import LearnerSettings
from training.types import Batch, Denominators, Sample

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.build(TinyModel(max_positions=256), EnvConfig(), 0, tmp_path_factory.mktemp("model"))


def batch() -> Batch:
    samples = []
    for row in range(6):
        length = 12 + 7 * row
        ids = tuple((31 * row + 7 * t) % 250 for t in range(length))
        mask = tuple(int(t % 4 == 3) for t in range(length))
        samples.append(Sample(ids, mask, tuple(-3.0 * m for m in mask), (-1.0) ** row))
    return Batch(tuple(samples), Denominators(tokens := sum(s.chosen for s in samples), len(samples), 1, tokens))


def learner(model: Path, gpus: float, **settings: object) -> Learner:
    return Learner(
        LearnerSettings(
            ModelConfig(**settings),  # type: ignore[arg-type]
            OptimizerConfig(lr=1e-3, warmup_steps=0),
            AlgorithmConfig(loss="dapo", entropy_coef=0.01),
            LearnerConfig(gpus_per_worker=gpus, max_tokens_per_microbatch=128, logprob_chunk_tokens=16),
            str(model),
        )
    )


def weights(policy: Learner) -> dict[str, torch.Tensor]:
    return {name: tensor.float().cpu() for name, tensor in policy.state_dict()}


def test_two_updates_in_float32_give_the_losses_and_weights_of_the_cpu(model: Path) -> None:
    on_cpu, on_gpu = learner(model, 0), learner(model, 1)
    for _ in range(2):
        expected, found = on_cpu.update(batch()), on_gpu.update(batch())
        assert found["train/loss"] == pytest.approx(expected["train/loss"], rel=1e-3)
        assert found["train/grad_norm"] == pytest.approx(expected["train/grad_norm"], rel=1e-3)
    reference = weights(on_cpu)
    for name, tensor in weights(on_gpu).items():
        torch.testing.assert_close(tensor, reference[name], atol=2e-3, rtol=1e-3)


def test_bfloat16_computes_under_autocast_and_keeps_float32_master_weights(model: Path) -> None:
    exact, fast = learner(model, 1), learner(model, 1, dtype="bfloat16")
    expected, found = exact.update(batch()), fast.update(batch())
    assert found["train/loss"] == pytest.approx(expected["train/loss"], rel=0.05, abs=0.05)
    assert {tensor.dtype for _, tensor in fast.state_dict()} == {torch.float32}
    assert any(not torch.equal(weights(fast)[name], tensor) for name, tensor in weights(learner(model, 1)).items())


def test_gradient_checkpointing_changes_memory_not_the_gradient(model: Path) -> None:
    plain, checkpointed = learner(model, 1), learner(model, 1, gradient_checkpointing=True)
    expected, found = plain.update(batch()), checkpointed.update(batch())
    assert found["train/grad_norm"] == pytest.approx(expected["train/grad_norm"], rel=1e-5)


def test_scores_equal_those_of_the_cpu(model: Path) -> None:
    samples = list(batch().samples)
    on_cpu, on_gpu = learner(model, 0).score(samples), learner(model, 1).score(samples)
    for a, b in zip(on_cpu, on_gpu, strict=True):
        assert a == pytest.approx(b, abs=1e-3)
