"""The seven axes of a robot arm's action, and the words in which a model names a movement along each of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Axis = Literal["x", "y", "z", "tilt", "roll", "rotation", "gripper"]


@dataclass(frozen=True, slots=True)
class Directions:
    """How a model says that the number of an axis grows (`positive`) or shrinks. `meaning` is for the prompt."""

    positive: str
    negative: str
    meaning: str


AXES: dict[Axis, Directions] = {
    "x": Directions("forward", "backward", "along the direction in which the arm reaches"),
    "y": Directions("left", "right", "sideways, as seen by the robot"),
    "z": Directions("up", "down", "height of the gripper"),
    "tilt": Directions("tilt up", "tilt down", "the fingers point higher or lower"),
    "roll": Directions("roll up", "roll down", "the hand leans over to one side or the other"),
    "rotation": Directions("rotate counterclockwise", "rotate clockwise", "the hand turns, as seen from above"),
    "gripper": Directions("open gripper", "close gripper", "the state that the fingers should have"),
}
GRIPPER: Axis = "gripper"
