"""How a policy acts is checked before anything starts."""

from __future__ import annotations

from typing import Any

import pytest

from configs.base import ConfigError
from configs.serving import ServeConfig


def serve(**policy: Any) -> ServeConfig:
    return ServeConfig.parse({"policies": [{"model": "m", **policy}]})


@pytest.mark.parametrize(
    ("safety", "words"),
    [
        ({"low": [0, 0], "high": [1]}, "low has 2 entries and high 1: give one per dimension"),
        ({"low": [0, 2], "high": [1, 1]}, "low is above high in some dimension: swap the two values"),
        ({"workspace_low": [2], "workspace_high": [1]}, "workspace_low is above workspace_high"),
        ({"workspace_low": [0]}, "workspace_low and workspace_high belong together"),
        ({"max_delta": [-1]}, "max_delta must not be negative"),
        ({"low": [float("nan")]}, "low must hold finite numbers"),
        ({"max_delta": [float("inf")]}, "max_delta must hold finite numbers"),
    ],
)
def test_limits_that_contradict_themselves_are_refused(safety: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        serve(act={"safety": safety})


def test_each_axis_of_an_arm_has_one_place() -> None:
    with pytest.raises(ConfigError, match="action_order must name each of the seven axes once"):
        serve(act={"arm": {"action_order": ["x", "x", "z", "tilt", "roll", "rotation", "gripper"]}})


@pytest.mark.parametrize("role", ["arm", "game"])
def test_a_prompt_may_hold_no_more_images_than_the_engine_takes(role: str) -> None:
    act = {role: {}, "max_images": 9}

    assert serve(act=act, engine={"max_images": 9}).policies[0].act.max_images == 9
    with pytest.raises(ConfigError, match=r"act.max_images \(9\) is above engine.max_images \(8\)"):
        serve(act=act)


def test_a_policy_that_only_writes_text_needs_no_images() -> None:
    assert serve(engine={"max_images": 0}).policies[0].act.arm is None
