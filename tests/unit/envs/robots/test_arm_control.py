"""The arm as chunk policies play it: numbers in; a picture, a state and an instruction out."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest

from envs.base import EpisodeOver, SettingError
from envs.robots.arm_control import ArmControl, ArmStep
from envs.robots.arm_expert import next_action, seen

STAY = np.array([0, 0, 0, 0, 0, 0, 1.0])


@pytest.fixture(autouse=True)
def simulator() -> None:
    pytest.importorskip("mujoco")


def play(control: ArmControl, action: np.ndarray = STAY) -> tuple[ArmStep, int]:
    """The end of an episode in which always the same is done."""
    steps = 0
    while True:
        step = control.step(action)
        steps += 1
        if step.success or step.truncated:
            return step, steps


def test_an_observation_has_a_picture_a_state_and_an_instruction() -> None:
    observation = ArmControl("pick", side=64).reset(0)
    assert observation.image is not None
    assert observation.image.shape == (64, 64, 3)
    assert observation.state.shape == (8,)
    assert observation.instruction.startswith("pick up the ")


def test_without_a_camera_there_are_no_pictures_but_the_same_states() -> None:
    blind, seeing = ArmControl(camera=False), ArmControl(side=32)
    assert blind.reset(4).image is None
    seeing.reset(4)
    action = blind.expert_chunk(1)[0]
    assert (blind.step(action).observation.state == seeing.step(action).observation.state).all()
    assert blind.render().shape == (256, 256, 3)


@pytest.mark.parametrize(("task", "limit"), [("reach", 40), ("pick", 60), ("place", 100)])
def test_who_stays_where_it_is_never_succeeds(task: str, limit: int) -> None:
    control = ArmControl(task, camera=False)
    assert control.horizon == limit
    control.reset(0)
    step, steps = play(control)
    assert (step.success, step.truncated, steps) == (False, True, limit)


def test_mixed_tasks_have_the_limit_of_the_longest() -> None:
    assert ArmControl(camera=False).horizon == 100
    assert ArmControl(camera=False, max_steps=7).horizon == 7


def test_being_at_the_object_counts_only_after_five_steps_in_a_row() -> None:
    control = ArmControl("reach", camera=False)
    control.reset(0)
    near = []
    while True:
        step = control.step(control.expert_chunk(1)[0])
        distance = np.linalg.norm(control.world.position - control.world.object_position(0))
        near.append(bool(distance <= 0.025))
        if step.success:
            break
    assert near[-5:] == [True] * 5
    assert sum(near) == 5


def test_who_leaves_the_object_begins_to_count_from_the_start() -> None:
    control, counted = ArmControl("reach", camera=False), 0
    control.reset(0)
    while counted < 4:
        assert not control.step(control.expert_chunk(1)[0]).success
        counted += float(np.linalg.norm(control.world.position - control.world.object_position(0))) <= 0.025
    control.step([0, 0, 0.0423, 0, 0, 0, 1])
    assert not any(control.step(control.expert_chunk(1)[0]).success for _ in range(3))


def test_the_other_cube_does_not_count() -> None:
    control = ArmControl("reach", camera=False)
    control.reset(0)
    while True:
        scene = seen("reach", control.world)
        other = replace(scene, goal=control.world.object_position(1), turned=control.world.object_rotation(1))
        step = control.step(next_action(other))
        if step.truncated or step.success:
            break
    assert np.linalg.norm(control.world.position - control.world.object_position(1)) < 0.025
    assert not step.success


def test_twenty_at_once_play_as_they_do_alone() -> None:
    def actions(seed: int) -> np.ndarray:
        return np.random.default_rng(seed).uniform(-0.03, 0.04, (6, 7))

    def alone(seed: int) -> np.ndarray:
        control = ArmControl(camera=False)
        control.reset(seed)
        for action in actions(seed):
            control.step(action)
        return control.world.data.qpos.copy()

    wanted = [alone(seed) for seed in range(20)]
    controls = [ArmControl(camera=False) for _ in range(20)]
    for seed, control in enumerate(controls):
        control.reset(seed)
    for turn in range(6):
        for seed, control in enumerate(controls):
            control.step(actions(seed)[turn])
    assert all((control.world.data.qpos == qpos).all() for control, qpos in zip(controls, wanted, strict=True))


def test_a_used_table_plays_a_seed_as_a_fresh_one_does() -> None:
    used, fresh = ArmControl(side=32), ArmControl(side=32)
    for seed in (1, 2, 7):
        used.reset(seed)
        used.step(used.expert_chunk(1)[0])
    first, wanted = used.reset(5), fresh.reset(5)
    assert (first.image == wanted.image).all()
    action = fresh.expert_chunk(1)[0]
    assert (used.step(action).observation.image == fresh.step(action).observation.image).all()
    assert (used.world.data.qpos == fresh.world.data.qpos).all()


def test_an_episode_goes_on_after_pickling_up_to_its_success() -> None:
    control = ArmControl("pick", side=32)
    control.reset(2)
    for _ in range(8):
        control.step(control.expert_chunk(1)[0])
    copy = pickle.loads(pickle.dumps(control))
    while True:
        action = control.expert_chunk(1)[0]
        step, other = control.step(action), copy.step(action)
        assert (step.observation.image == other.observation.image).all()
        assert (step.success, step.truncated) == (other.success, other.truncated)
        if step.success or step.truncated:
            break
    assert step.success


@pytest.mark.parametrize("action", [[0.0], [0.0] * 8, [0.0] * 6 + [float("nan")], [[0.0] * 7]])
def test_an_action_that_is_no_seven_numbers_is_refused(action: list[float]) -> None:
    control = ArmControl(camera=False)
    control.reset(0)
    with pytest.raises(ValueError, match="seven finite numbers"):
        control.step(action)


def test_an_episode_that_is_over_takes_no_action() -> None:
    control = ArmControl(camera=False, max_steps=2)
    with pytest.raises(EpisodeOver):
        control.step(STAY)
    for seed in (0, 1):
        control.reset(seed)
        assert [control.step(STAY).truncated for _ in range(2)] == [False, True]
        with pytest.raises(EpisodeOver):
            control.step(STAY)


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(SettingError, match="task must be one of reach, pick, place, mixed"):
        ArmControl("stack")
    with pytest.raises(SettingError, match="max_steps"):
        ArmControl(max_steps=0)
    with pytest.raises(SettingError, match="state must be one of proprio, estimated"):
        ArmControl(state="everything")  # type: ignore[arg-type]


def test_an_estimated_state_also_tells_where_cube_and_bowl_are() -> None:
    own, estimated = ArmControl("pick", camera=False), ArmControl("pick", camera=False, state="estimated")
    own.reset(3)
    estimated.reset(3)
    action = own.expert_chunk(1)[0]
    action[6] = 0.0
    alone, state = own.step(action).observation.state, estimated.step(action).observation.state
    assert state.shape == (16,)
    assert (state[:8] == alone).all()
    world = estimated.world
    np.testing.assert_allclose(state[:3] + state[8:11], world.object_position(0), atol=1e-6)
    np.testing.assert_allclose(state[11] + state[5], world.object_rotation(0), atol=1e-6)
    np.testing.assert_allclose(world.object_position(0)[:2] + state[12:14], world.layout.bowl, atol=1e-6)
    assert state[14] == pytest.approx(world.object_position(0)[2])
    assert state[15] == 0.0, "the gripper was told to close"
