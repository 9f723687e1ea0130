"""A learner that would compute in something else than it was told does not start."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import pytest
import torch

from configs.models import ModelConfig
from tests.unit.training.learner.cases import SAMPLES, learner
from training.learner.precision import check_precision


def test_a_forward_pass_in_another_precision_is_refused(policy_folder: Path) -> None:
    one = learner(policy_folder)
    with pytest.raises(RuntimeError, match=r"to compute in torch\.bfloat16, and computes in torch\.float32"):
        check_precision(one.policy, one.policy, torch.bfloat16, one.device)


def test_scores_in_bfloat16_are_those_of_float32_but_for_rounding(policy_folder: Path) -> None:
    exact = learner(policy_folder).score(SAMPLES)
    rounded = learner(policy_folder, model=ModelConfig(dtype="bfloat16")).score(SAMPLES)
    assert rounded != exact
    assert list(chain(*rounded)) == pytest.approx(list(chain(*exact)), abs=0.1)
