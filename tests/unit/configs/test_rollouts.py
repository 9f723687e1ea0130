"""Settings of the environment and of the rollouts that must fit together."""

from __future__ import annotations

import pytest

from configs.base import ConfigError
from configs.rollouts import EnvConfig
from configs.training import TrainConfig


def test_where_a_script_plays_its_own_settings_are_laid_over_those_of_training() -> None:
    env = EnvConfig(kwargs={"split": "train", "opponent": "policy"}, scripted_kwargs={"opponent": "random"})
    assert env.scripted == {"split": "train", "opponent": "random"}
    assert env.kwargs == {"split": "train", "opponent": "policy"}


@pytest.mark.parametrize("isolation", ["none", "thread"])
def test_another_python_needs_a_process(isolation: str) -> None:
    with pytest.raises(ConfigError, match="python"):
        TrainConfig.parse({"env": {"python": "/opt/other/bin/python", "isolation": isolation}})
    TrainConfig.parse({"env": {"python": "/opt/other/bin/python", "isolation": "process"}})
