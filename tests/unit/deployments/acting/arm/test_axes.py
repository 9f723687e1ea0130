"""The axes are those of the contract, in its order."""

from deployments.acting.arm.axes import AXES, GRIPPER


def test_the_axes_are_those_of_the_contract_and_no_direction_is_said_of_two() -> None:
    assert list(AXES) == ["x", "y", "z", "tilt", "roll", "rotation", GRIPPER]
    words = [word for directions in AXES.values() for word in (directions.positive, directions.negative)]
    assert len(set(words)) == 14
