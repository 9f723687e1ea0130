"""What `benchmarks.learner` compares does the same work."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import learner_sides
from benchmarks.learner import Lengths, samples
from benchmarks.learner_sides import SIDES, Work
from benchmarks.shapes import Shape, save
from configs.training import TrainConfig
from training.learner.learner import Learner
from training.learner.settings import LearnerSettings
from training.types import Sample

TINY = Shape("tiny", "llama", 32, 64, 2, 4, 2, 600)


def test_all_sides_compute_the_same_gradient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    norms: list[float] = []

    def kept(model: Any, optimizer: Any) -> None:
        norms.append(float(torch.nn.utils.get_total_norm([p.grad for p in model.parameters()])))

    monkeypatch.setattr(learner_sides, "_apply", kept)
    work = Work(save(TINY, tmp_path), samples(Lengths("", 5, (4, 9), (3, 8)), TINY.vocabulary), budget=40, threads=1)
    work = replace(work, samples=on_policy(work))

    metrics: Any = SIDES["rayward"](work)()
    SIDES["TRL"](work)()
    SIDES["bare"](work)()

    assert norms == pytest.approx([metrics["train/grad_norm"]] * 2, rel=1e-4)


def on_policy(work: Work) -> tuple[Sample, ...]:
    """Sampled by the model itself, all with advantage 1: the policy loss then has the gradient of the cross entropy."""
    config = TrainConfig.parse({})
    scores = Learner(LearnerSettings.of(config, work.model)).score(list(work.samples))
    return tuple(
        replace(each, sampler_logp_T=(0.0,) * (len(each.mask_T) - each.chosen) + tuple(logp), advantage=1.0)
        for each, logp in zip(work.samples, scores, strict=True)
    )
