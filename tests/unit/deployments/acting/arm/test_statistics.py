"""Sizes become metres and radians by the statistics of recorded actions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from configs.acting import ArmConfig
from configs.base import ConfigError
from deployments.acting.arm.answer import read_move
from deployments.acting.arm.axes import AXES
from deployments.acting.arm.statistics import BRIDGE, DEFAULT, action_of, chosen, statistics_of
from deployments.errors import PolicyError

FULL = {axis: [AXES[axis].positive, 1.0, ""] for axis in AXES}


def whole_file(**changes: object) -> dict[str, object]:
    entry = {"mean": 0.1, "std": 1, "min": -1, "max": 1, "median": 0.5, "10th": -1, "90th": 1, "interdecile_range": 2.0}
    return {axis: {"description": axis, "actions": entry} for axis in AXES} | changes


def test_a_full_step_is_the_median_plus_half_the_interdecile_range() -> None:
    config = ArmConfig()
    bridge = chosen(statistics_of(config), None)

    # The figures of BridgeData: z, for example, is -0.000366 + 0.012906.
    expected = [0.011131, 0.009840, 0.012540, 0.022473, 0.033679, 0.051600, 1.0]
    assert action_of(read_move(json.dumps(FULL)), bridge, config.action_order) == pytest.approx(expected, abs=1e-7)


def test_an_axis_that_is_left_alone_is_zero_even_where_the_median_is_not() -> None:
    bridge = chosen(statistics_of(ArmConfig()), None)
    move = read_move('{"z": null, "x": ["backward", 0.5, ""], "gripper": ["close gripper", 1, ""]}')

    assert action_of(move, bridge, list(AXES)).tolist() == pytest.approx([-0.0055655, 0, 0, 0, 0, 0, 0])


def test_the_order_of_the_axes_is_the_robots() -> None:
    move = read_move('{"tilt": ["tilt up", 1, ""], "roll": ["roll down", 1, ""]}')
    action = action_of(
        move, chosen(statistics_of(ArmConfig()), None), ["x", "y", "z", "roll", "tilt", "rotation", "gripper"]
    )

    assert action.dtype == np.float32
    assert action[3:5].tolist() == pytest.approx([0.000549 - 0.033130, 0.022473])


def test_statistics_are_chosen_by_name(tmp_path: Path) -> None:
    mine, other = tmp_path / "mine.json", tmp_path / "other.json"
    mine.write_text(json.dumps(whole_file()))
    other.write_text(json.dumps(whole_file(x={"actions": {"median": 0.0, "interdecile_range": 20.0}})))
    known = statistics_of(ArmConfig(action_bounds=mine, statistics={"other": other}))

    assert chosen(known, None).value("x", 1.0) == 1.5
    assert chosen(known, DEFAULT).value("x", 1.0) == 1.5
    assert chosen(known, "other").value("x", 1.0) == 10.0
    assert chosen(known, BRIDGE).value("x", 1.0) == pytest.approx(0.011131)
    with pytest.raises(PolicyError, match="no action statistics 'robot'; this policy has bridge_orig, default, other"):
        chosen(known, "robot")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "Invalid JSON"),
        (json.dumps({"x": {"actions": {"median": 0, "interdecile_range": 1}}}), "y: Field required"),
        (json.dumps(whole_file(roll={"description": "no figures"})), "roll has no actions"),
        (json.dumps(whole_file(z={"actions": {"median": 0}})), "z.actions.interdecile_range: Field required"),
        (json.dumps(whole_file(z={"actions": {"median": "a", "interdecile_range": -1}})), "z.actions.median"),
    ],
)
def test_a_file_of_another_form_is_a_configuration_error_that_names_it(
    tmp_path: Path, content: str, words: str
) -> None:
    file = tmp_path / "action_bounds.json"
    file.write_text(content)

    with pytest.raises(ConfigError, match=words) as refusal:
        statistics_of(ArmConfig(action_bounds=file))
    assert str(file) in str(refusal.value)


def test_a_file_that_is_not_there_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        statistics_of(ArmConfig(action_bounds=tmp_path / "none.json"))
