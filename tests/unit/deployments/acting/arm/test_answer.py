"""A model's words about the arm's next step become a signed size for each axis, or are refused by name."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.acting.answers import UnreadableAnswer
from deployments.acting.arm.answer import move_schema, read_move
from deployments.acting.arm.axes import AXES, Axis

PROSE = """The block's left of the gripper, and I shouldn't hurry.

```json
{
  "x": ["backward", 0.25, "it's a bit close"],
  "y": ["left", 1.0, "far"],
  "z": [null, 0, "height is right"],
  "tilt": ["tilt down", 0.5, ""],
  "roll": ["roll up", 0.5, ""],
  "rotation": ["rotate clockwise", 0.1, ""],
  "gripper": ["open gripper", 1, "to grasp later"],
}
```"""


def test_prose_with_a_fenced_object_is_read_axis_by_axis() -> None:
    assert read_move(PROSE) == {
        "x": -0.25,
        "y": 1.0,
        "z": None,
        "tilt": -0.5,
        "roll": 0.5,
        "rotation": -0.1,
        "gripper": 1.0,
    }


@pytest.mark.parametrize("axis", AXES)
def test_both_directions_of_every_axis_are_understood(axis: Axis) -> None:
    for sign, name in ((1.0, AXES[axis].positive), (-1.0, AXES[axis].negative)):
        for said in (name, name.upper(), name.replace(" ", "_"), f" {name} "):
            assert read_move(json.dumps({axis: [said, 1, ""]}))[axis] == sign


@pytest.mark.parametrize(
    ("axis", "said", "sign"),
    [
        ("tilt", "up", 1.0),
        ("roll", "down", -1.0),
        ("rotation", "counter-clockwise", 1.0),
        ("rotation", "rotate counter clockwise", 1.0),
        ("rotation", "clockwise", -1.0),
        ("gripper", "close", -1.0),
    ],
)
def test_short_forms_are_understood(axis: Axis, said: str, sign: float) -> None:
    assert read_move(json.dumps({axis: [said, 1, ""]}))[axis] == sign


@pytest.mark.parametrize(("size", "kept"), [(1.7, 1.0), (-3, 0.0), ("0.5", 0.5), (0, 0.0), (10**30, 1.0)])
def test_sizes_are_clamped_to_0_to_1(size: object, kept: float) -> None:
    assert read_move(json.dumps({"x": ["forward", size, ""]}))["x"] == kept


@pytest.mark.parametrize(
    "entry", [None, [], [None], [None, None, None], ["null", 0.4], ["None", 0], {"direction": None, "magnitude": 0}]
)
def test_nothing_to_do_leaves_the_axis_alone(entry: object) -> None:
    move = read_move(json.dumps({"y": entry, "x": ["forward", 1, ""]}))

    assert (move["y"], move["gripper"]) == (None, None)


def test_a_gripper_is_open_or_closed_whatever_size_is_said() -> None:
    assert read_move('{"gripper": ["close gripper", 0, ""]}')["gripper"] == -1.0
    assert read_move('{"gripper": ["open gripper", null, ""]}')["gripper"] == 1.0


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (["sideways", 1, ""], "unknown direction 'sideways' for y: expected 'left', 'right' or null"),
        (["forward", 1, ""], "unknown direction 'forward' for y"),
        (["left", None, ""], "the size of y must be a number from 0 to 1, got None"),
        (["left", "much", ""], "the size of y must be a number"),
        (["left", True, ""], "the size of y must be a number"),
        (["left"], "y must be"),
        ("left", "y must be"),
        (7, "y must be"),
        ({"direction": "left"}, "y must be"),
    ],
)
def test_what_cannot_be_meant_is_named(entry: object, words: str) -> None:
    with pytest.raises(UnreadableAnswer, match=re.escape(words)):
        read_move(json.dumps({"y": entry}))


def test_a_size_that_is_no_number_is_named() -> None:
    with pytest.raises(UnreadableAnswer, match="the size of y"):
        read_move('{"y": ["left", NaN, ""]}')


@given(st.data())
def test_every_answer_of_the_schema_is_read(data: st.DataObject) -> None:
    schema = move_schema()
    answer = {
        axis: [data.draw(_drawn(part)) for part in entry["prefixItems"]] for axis, entry in schema["properties"].items()
    }  # type: ignore[attr-defined, index]

    move = read_move(json.dumps(answer))

    assert list(move) == list(AXES) == schema["required"]
    assert all(size is None or -1 <= size <= 1 for size in move.values())
    assert move["gripper"] in (1.0, -1.0)


def _drawn(schema: dict[str, object]) -> st.SearchStrategy[object]:
    if "enum" in schema:
        return st.sampled_from(schema["enum"])  # type: ignore[arg-type]
    return st.from_regex(str(schema["pattern"]).replace("$", r"\Z"))
