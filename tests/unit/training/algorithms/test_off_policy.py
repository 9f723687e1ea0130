"""Off-policy corrections."""

from __future__ import annotations

import pytest
import torch

from configs.training import AlgorithmConfig
from training.algorithms.losses import kl_to_reference
from training.algorithms.off_policy import off_policy_weight


def test_off_policy_corrections_by_hand() -> None:
    learner, sampler = torch.log(torch.tensor([[3.0, 1.0, 0.1]])), torch.zeros(1, 3)
    mask = torch.ones(1, 3)

    def weights(kind: str) -> list[float]:
        config = AlgorithmConfig(off_policy=kind)  # type: ignore[arg-type]
        return off_policy_weight(learner, sampler, mask, config)[0].tolist()

    assert weights("none") == [1, 1, 1]
    assert weights("tis") == pytest.approx([2.0, 1.0, 0.1])
    assert weights("icepop") == pytest.approx([0.0, 1.0, 0.0])
    assert weights("sequence_mask") == [1, 1, 1]  # geometric mean 0.67 lies within 0.5 .. 2
    assert float(kl_to_reference(learner, learner, mask)) == 0
