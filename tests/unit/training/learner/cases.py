"""Samples and learners that the tests of this folder share."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from configs.models import ModelConfig
from configs.training import AlgorithmConfig, LearnerConfig, OptimizerConfig
from training.learner.learner import Learner
from training.learner.settings import LearnerSettings
from training.types import Batch, Denominators, Sample


def sample(seed: int, length: int, advantage: float = 1.0) -> Sample:
    rng = random.Random(seed)
    mask = [0, *(int(rng.random() < 0.4) for _ in range(length - 2)), 1]
    ids = tuple(rng.randrange(250) for _ in range(length))
    return Sample(ids, tuple(mask), tuple(-1.0 * m for m in mask), advantage)


def siblings(seed: int, prompt: int, answers: list[int]) -> list[Sample]:
    """Sequences with one prompt and answers of the given lengths."""
    rng = random.Random(seed)
    start = tuple(rng.randrange(250) for _ in range(prompt))
    made = []
    for answer in answers:
        ids = start + tuple(rng.randrange(250) for _ in range(answer))
        made.append(Sample(ids, (0,) * prompt + (1,) * answer, (0.0,) * prompt + (-1.0,) * answer, 1.0))
    return made


def batch(samples: list[Sample]) -> Batch:
    return Batch(tuple(samples), Denominators(tokens := sum(s.chosen for s in samples), len(samples), 1, tokens))


SAMPLES = [sample(i, 5 + 3 * i, (-1.0) ** i) for i in range(7)]


def learner(folder: Path, rank: int = 0, world: int = 1, **changes: Any) -> Learner:
    parts: dict[str, Any] = {
        "model": ModelConfig(),
        "optimizer": OptimizerConfig(lr=1e-2, warmup_steps=0),
        "algorithm": AlgorithmConfig(entropy_coef=0.01),
        "learner": LearnerConfig(max_tokens_per_microbatch=64, logprob_chunk_tokens=16),
        "model_folder": str(folder),
        "temperature": 0.7,
    }
    return Learner(LearnerSettings(**parts | changes), rank, world)
