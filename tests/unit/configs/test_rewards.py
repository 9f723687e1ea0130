"""The section `reward`."""

from __future__ import annotations

import pytest

from configs.base import ConfigError
from configs.training import TrainConfig


def test_a_run_pays_what_the_environment_pays_unless_told_otherwise() -> None:
    assert TrainConfig().reward.weights == {}


def test_weights_are_set_by_name_on_the_command_line() -> None:
    config = TrainConfig.parse({}, ["reward.weights.format=0.2", "reward.weights.solved=-1"])
    assert config.reward.weights == {"format": 0.2, "solved": -1.0}


@pytest.mark.parametrize("weight", [".nan", ".inf", "much"])
def test_a_weight_is_a_finite_number(weight: str) -> None:
    with pytest.raises(ConfigError, match=r"reward\.weights\.format"):
        TrainConfig.parse({}, [f"reward.weights.format={weight}"])
