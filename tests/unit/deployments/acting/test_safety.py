"""Whatever a policy answers, what leaves is finite and within the limits, or an error."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from configs.acting import SafetyConfig
from configs.base import ConfigError
from deployments.acting.safety import Safety
from deployments.errors import PolicyError

NAN = float("nan")


def rows(*values: list[float]) -> NDArray[np.float32]:
    return np.array(values, np.float32)


def vector(*values: float) -> NDArray[np.float32]:
    return np.array(values, np.float32)


def test_actions_within_the_limits_pass_as_they_are() -> None:
    safety = Safety(SafetyConfig(low=[-1, -1], high=[1, 1], max_delta=[1, 1]), [False, False])
    safe = safety.apply(rows([0.1, 0.2], [0.3, -0.4]), vector(0, 0), None)

    assert np.array_equal(safe.actions, rows([0.1, 0.2], [0.3, -0.4]))
    assert safe.interventions == ()


def test_without_limits_only_what_is_not_finite_is_touched() -> None:
    safe = Safety(SafetyConfig(), [False]).apply(rows([3e38], [-3e38]), None, None)

    assert (safe.actions.tolist(), safe.interventions) == (rows([3e38], [-3e38]).tolist(), ())


def test_actions_are_clipped_to_the_bounds() -> None:
    safe = Safety(SafetyConfig(low=[-1, -2], high=[1, 2]), [True, True]).apply(rows([5, -5]), None, None)

    assert (safe.actions.tolist(), safe.interventions) == ([[1, -2]], ("clipped",))


def test_each_action_may_differ_from_the_one_before_by_the_largest_change() -> None:
    safe = Safety(SafetyConfig(max_delta=[0.5]), [False]).apply(rows([2], [2], [2]), vector(0), None)

    assert (safe.actions.tolist(), safe.interventions) == ([[0.5], [1.0], [1.5]], ("slowed",))


def test_the_first_action_is_free_when_nothing_is_known_of_the_one_before() -> None:
    safe = Safety(SafetyConfig(max_delta=[0.5]), [False]).apply(rows([2], [4]), None, None)

    assert safe.actions.tolist() == [[2.0], [2.5]]


def test_changes_are_added_up_from_the_state_and_stop_at_the_wall_of_the_workspace() -> None:
    config = SafetyConfig(workspace_low=[0, 0], workspace_high=[1, 1])
    safe = Safety(config, [True, True, True]).apply(rows([0.25, -0.1, 9], [0.5, 0, 9]), None, vector(0.5, 0.1))

    assert safe.actions == pytest.approx(rows([0.25, -0.1, 9], [0.25, 0, 9]))
    assert safe.interventions == ("workspace",)


def test_a_step_that_would_be_fine_alone_is_limited_after_one_that_went_far() -> None:
    safe = Safety(SafetyConfig(workspace_low=[0], workspace_high=[1]), [True]).apply(
        rows([0.75], [0.5]), None, vector(0)
    )

    assert safe.actions.tolist() == [[0.75], [0.25]]


def test_targets_stay_in_the_workspace_wherever_the_robot_is() -> None:
    config = SafetyConfig(workspace_low=[0], workspace_high=[1])
    safe = Safety(config, [False, False]).apply(rows([3, 3]), None, None)

    assert (safe.actions.tolist(), safe.interventions) == ([[1, 3]], ("workspace",))


def test_a_robot_outside_its_workspace_comes_back_no_faster_than_its_bounds_allow() -> None:
    config = SafetyConfig(low=[-0.2], high=[0.2], workspace_low=[0], workspace_high=[1])
    safe = Safety(config, [True]).apply(rows([0.1], [0.1]), None, vector(1.3))

    assert safe.actions == pytest.approx(rows([-0.2], [-0.1]))


def test_a_workspace_of_changes_needs_to_know_where_the_robot_is() -> None:
    safety = Safety(SafetyConfig(workspace_low=[0, 0], workspace_high=[1, 1]), [True, True])

    for position in (None, vector(0.5)):
        with pytest.raises(PolicyError, match="send a state of at least 2 numbers") as refusal:
            safety.apply(rows([0, 0]), None, position)
        assert refusal.value.kind == "invalid_request"


@pytest.mark.parametrize("bad", [NAN, np.inf, -np.inf])
def test_holding_repeats_the_target_and_changes_nothing(bad: float) -> None:
    safety = Safety(SafetyConfig(fallback="hold"), [True, False])
    safe = safety.apply(rows([1, 2], [bad, 3]), vector(0, 0), None)

    assert (safe.actions.tolist(), safe.interventions) == ([[1, 2], [0, 2]], ("not_finite", "held"))


def test_the_first_action_is_held_from_what_the_robot_is_doing() -> None:
    safe = Safety(SafetyConfig(fallback="hold"), [False]).apply(rows([NAN], [5]), vector(4), None)

    assert safe.actions.tolist() == [[4], [5]]


def test_with_nothing_to_hold_it_is_an_error() -> None:
    with pytest.raises(PolicyError, match="no earlier one or state to hold") as refusal:
        Safety(SafetyConfig(fallback="hold"), [False]).apply(rows([NAN]), None, None)
    assert refusal.value.kind == "engine_failed"
    assert Safety(SafetyConfig(fallback="hold"), [True]).apply(rows([NAN]), None, None).actions.tolist() == [[0]]


def test_what_is_known_of_some_dimensions_only_is_used_for_them() -> None:
    known = vector(NAN, 2)
    safety = Safety(SafetyConfig(fallback="hold", max_delta=[1, 1]), [True, False])

    assert safety.apply(rows([9, 9]), known, None).actions.tolist() == [[9, 3]]
    assert safety.apply(rows([NAN, 9]), known, None).actions.tolist() == [[0, 2]]
    with pytest.raises(PolicyError, match="no earlier one or state to hold"):
        safety.apply(rows([NAN, 9]), vector(2, NAN), None)


def test_the_no_op_is_zero_as_far_as_the_bounds_allow() -> None:
    safe = Safety(SafetyConfig(fallback="no_op", low=[0.5]), [False]).apply(rows([NAN]), vector(9), None)

    assert (safe.actions.tolist(), safe.interventions) == ([[0.5]], ("not_finite", "no_op", "clipped"))


def test_the_fallback_may_be_an_error() -> None:
    safety = Safety(SafetyConfig(fallback="error"), [True])

    for attempt in (lambda: safety.apply(rows([NAN]), vector(0), None), lambda: safety.instead(vector(0), None)):
        with pytest.raises(PolicyError) as refusal:
            attempt()
        assert refusal.value.kind == "engine_failed"


def test_an_answer_that_could_not_be_read_is_replaced_and_limited() -> None:
    safe = Safety(SafetyConfig(fallback="hold", high=[9, 1]), [True, False]).instead(vector(3, 2), None)

    assert (safe.actions.tolist(), safe.interventions) == ([[0, 1]], ("unparsed", "held", "clipped"))


def test_which_dimensions_are_changes_can_be_configured() -> None:
    config = SafetyConfig(fallback="hold", relative=[False, True])

    assert Safety(config, [True, False]).instead(vector(3, 2), None).actions.tolist() == [[3, 0]]


@pytest.mark.parametrize("name", ["low", "high", "max_delta", "relative"])
def test_lists_of_another_length_are_a_configuration_error(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"safety.{name} has 2 entries, but the policy's actions have 3 dimensions"):
        Safety(SafetyConfig(**{name: [0, 0]}), [True] * 3)


def test_a_workspace_of_more_dimensions_than_actions_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="workspace_low has 2 entries"):
        Safety(SafetyConfig(workspace_low=[0, 0], workspace_high=[1, 1]), [True])


numbers = st.floats(-100, 100)


@st.composite
def limits(draw: st.DrawFn) -> tuple[SafetyConfig, int]:
    dimensions = draw(st.integers(1, 4))

    def ordered(size: int) -> tuple[list[float], list[float]]:
        pairs = [sorted((draw(numbers), draw(numbers))) for _ in range(size)]
        return [pair[0] for pair in pairs], [pair[1] for pair in pairs]

    low, high = ordered(dimensions)
    box_low, box_high = ordered(draw(st.integers(0, dimensions)))
    config = SafetyConfig(
        low=low,
        high=high,
        max_delta=draw(st.none() | st.lists(st.floats(0, 50), min_size=dimensions, max_size=dimensions)),
        workspace_low=box_low or None,
        workspace_high=box_high or None,
        relative=draw(st.lists(st.booleans(), min_size=dimensions, max_size=dimensions)),
        fallback=draw(st.sampled_from(["hold", "no_op", "error"])),
    )
    return config, dimensions


@given(limits(), st.data())
def test_what_leaves_is_finite_and_within_the_bounds_or_an_error(
    limited: tuple[SafetyConfig, int], data: st.DataObject
) -> None:
    config, dimensions = limited
    anything = st.floats(width=32)
    actions = data.draw(hnp.arrays(np.float32, st.tuples(st.integers(1, 4), st.just(dimensions)), elements=anything))
    previous = data.draw(st.none() | hnp.arrays(np.float32, dimensions, elements=st.floats(-200, 200, width=32)))
    position = data.draw(st.none() | hnp.arrays(np.float32, dimensions, elements=st.floats(-200, 200, width=32)))

    try:
        safe = Safety(config, [False] * dimensions).apply(actions, previous, position)
    except PolicyError:
        assume(False)  # an error is an honest answer, too; which one, the tests above say

    assert safe.actions.dtype == np.float32
    assert safe.actions.shape == actions.shape
    assert np.isfinite(safe.actions).all()
    for dimension, (low, high) in enumerate(zip(config.low or (), config.high or (), strict=True)):
        if np.nextafter(np.float32(low), np.float32(np.inf)) < high:  # there is a float32 between the two
            assert (safe.actions[:, dimension].astype(float) >= low).all()
            assert (safe.actions[:, dimension].astype(float) <= high).all()
    if not safe.interventions:
        assert np.array_equal(safe.actions, actions)


@given(limits(), st.data())
def test_a_chunk_is_limited_as_its_actions_are_one_after_the_other(
    limited: tuple[SafetyConfig, int], data: st.DataObject
) -> None:
    config, dimensions = limited
    safety = Safety(config.model_copy(update={"fallback": "no_op"}), [False] * dimensions)
    near = st.sampled_from([0.0, 0.5, -0.5, np.nan]) | st.floats(-100, 100, width=32)
    actions = data.draw(hnp.arrays(np.float32, (4, dimensions), elements=near))
    previous = data.draw(st.none() | hnp.arrays(np.float32, dimensions, elements=st.floats(-9, 9, width=32)))
    place = data.draw(hnp.arrays(np.float64, dimensions, elements=st.floats(-9, 9)))

    whole = safety.apply(actions, previous, place)  # type: ignore[arg-type]
    taken = []
    for row, expected in zip(actions, whole.actions, strict=True):
        single = safety.apply(row[None], previous, place)  # type: ignore[arg-type]
        assert single.actions[0] == pytest.approx(expected, abs=1e-9)
        taken += single.interventions
        previous = single.actions[0]
        place = place + np.where(config.relative, previous, 0.0)
    assert set(taken) == set(whole.interventions)


@given(st.data())
def test_from_inside_the_workspace_no_sequence_of_changes_leaves_it(data: st.DataObject) -> None:
    actions = data.draw(hnp.arrays(np.float32, (6, 2), elements=st.floats(-3, 3, width=32)))
    start = data.draw(hnp.arrays(np.float32, 2, elements=st.floats(0, 1, width=32)))
    config = SafetyConfig(workspace_low=[0, 0], workspace_high=[1, 1], low=[-0.5, -0.5], high=[0.5, 0.5])

    safe = Safety(config, [True, True]).apply(actions, None, start)

    path = start + np.cumsum(safe.actions.astype(np.float64), axis=0)
    assert (path >= -1e-6).all()
    assert (path <= 1 + 1e-6).all()
