"""What the model is shown and told about a step of the arm."""

from __future__ import annotations

import numpy as np
import pytest

from deployments.acting.arm.axes import AXES
from deployments.acting.arm.prompt import arm_turns, check_observation, gripper_target, state_text
from deployments.errors import PolicyError
from deployments.protocol.act import Frame, Observation, PastStep

STATE = np.array([0.1, -0.2, 0.3, 0.4, 0.5, 0.6, 0.0, 0.39], np.float32)


def frame(shade: int) -> Frame:
    return np.full((2, 2, 3), shade, np.uint8)


def test_the_conversation_shows_the_past_and_then_the_present() -> None:
    observation = Observation((frame(1), None, frame(2)), "lift the cup", STATE)
    turns = arm_turns(observation, [PastStep((frame(8),), "I moved left."), PastStep((frame(9),), "I moved up.")])

    assert [turn.role for turn in turns] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert [[int(image[0, 0, 0]) for image in turn.images] for turn in turns] == [[], [8], [], [9], [], [1, 2]]
    assert [turns[2].text, turns[4].text] == ["I moved left.", "I moved up."]
    assert "Task: lift the cup" in turns[-1].text
    assert state_text(STATE) in turns[-1].text


def test_the_rules_name_every_direction() -> None:
    rules = arm_turns(Observation((frame(0),), "go"), [])[0].text

    for directions in AXES.values():
        assert f'"{directions.positive}" or "{directions.negative}"' in rules


def test_the_state_is_told_in_metres_radians_and_per_cent() -> None:
    text = state_text(STATE)

    assert "x 0.100, y -0.200, z 0.300 metres" in text
    assert "rx 0.40, ry 0.50, rz 0.60 radians" in text
    assert "100 % open" in text


def test_the_gripper_is_open_or_closed_whichever_is_nearer() -> None:
    assert gripper_target(STATE) == 1.0
    assert gripper_target(np.zeros(8, np.float32)) == 0.0


@pytest.mark.parametrize(
    ("observation", "words"),
    [
        (Observation((), "go"), "at least one image"),
        (Observation((None,), "go"), "at least one image"),
        (Observation((frame(0),), "go", STATE[:7]), r"proprio must be 8 numbers .* got 7"),
    ],
)
def test_an_observation_that_lacks_something_is_refused(observation: Observation, words: str) -> None:
    with pytest.raises(PolicyError, match=words) as refusal:
        check_observation(observation)
    assert refusal.value.kind == "invalid_request"
