"""The stages of a curriculum are checked before anything starts."""

from __future__ import annotations

from typing import Any

import pytest

from configs.base import ConfigError
from configs.training import TrainConfig

STAGES = [{"name": "small", "kwargs": {"size": 3}}, {"name": "large"}]


def parsed(**curriculum: Any) -> Any:
    env = {"name": "key_door", "kwargs": {"size": 4, "max_steps": 20}}
    return TrainConfig.parse({"env": env, "curriculum": {"stages": STAGES, **curriculum}})


def test_a_stage_lays_its_settings_over_those_of_the_environment() -> None:
    config = parsed()
    small, large = (config.curriculum.env_of(config.env, name) for name in ("small", "large"))
    assert (small.name, small.kwargs) == ("key_door", {"size": 3, "max_steps": 20})
    assert large == config.env


def test_another_environment_has_settings_of_its_own() -> None:
    config = parsed(stages=[*STAGES, {"name": "other", "env": "tictactoe", "kwargs": {"opponent": "minimax"}}])
    other = config.curriculum.env_of(config.env, "other")
    assert (other.name, other.kwargs, other.max_turns) == ("tictactoe", {"opponent": "minimax"}, config.env.max_turns)


@pytest.mark.parametrize(
    ("curriculum", "told"),
    [
        ({"stages": STAGES[:1]}, "at least 2"),
        ({"stages": [STAGES[0], STAGES[0]]}, "two stages are called 'small': give each a name of its own"),
        ({"order": {"kind": "mixture", "weights": [1, 2, 3]}}, "order.weights has 3 numbers for 2 stages"),
        ({"order": {"kind": "steps", "starts": [0]}}, "order.starts has 1 numbers for 2 stages"),
        ({"order": {"kind": "steps", "starts": [5, 10]}}, "starts must begin with 0 and rise, got .5, 10."),
        ({"order": {"kind": "steps", "starts": [0, 0]}}, "starts must begin with 0 and rise"),
        (
            {"order": {"kind": "success", "advance": 0.5}},
            "curriculum.order.advance: unknown key. Did you mean .advance_at.*window_groups",
        ),
    ],
)
def test_a_curriculum_that_does_not_fit_is_refused_with_the_reason(curriculum: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        parsed(**curriculum)
