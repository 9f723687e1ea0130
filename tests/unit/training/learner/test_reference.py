"""The reference of the KL term equals the policy that it was loaded with, and stays as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

from configs.models import ModelConfig
from configs.training import AlgorithmConfig
from tests.unit.training.learner.cases import SAMPLES, batch, learner


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_untrained_policy_has_no_divergence_and_a_trained_one_has(
    dtype: Literal["float32", "bfloat16"], policy_folder: Path
) -> None:
    one = learner(policy_folder, model=ModelConfig(dtype=dtype), algorithm=AlgorithmConfig(kl_coef=0.1))
    assert [one.update(batch(SAMPLES))["train/kl"] > 0 for _ in range(2)] == [False, True]
