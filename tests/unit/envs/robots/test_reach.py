from __future__ import annotations

import numpy as np
import pytest

from envs.base import EpisodeOver, SettingError
from envs.robots.reach import COLOURS, Reach, ReachStep, moved


def play(env: Reach, seed: int) -> tuple[ReachStep, int]:
    """An episode of the expert, who plans four steps ahead."""
    env.reset(seed)
    steps = 0
    while True:
        for action in env.expert_chunk(4):
            step = env.step(action)
            steps += 1
            if step.success or step.truncated:
                return step, steps


@pytest.mark.parametrize("objects", [1, 2, 4])
def test_the_expert_reaches_the_named_object_on_every_table(objects: int) -> None:
    env = Reach(objects=objects)
    assert all(play(env, seed)[0].success for seed in range(50))


def test_who_stays_where_it_is_never_succeeds() -> None:
    env = Reach()
    for seed in range(50):
        observation = env.reset(seed)
        step = env.step(observation.state)
        while not step.truncated:
            assert not step.success
            step = env.step(observation.state)


def test_passing_over_the_object_is_not_reaching_it() -> None:
    env = Reach(tolerance=0.05, hold_steps=5)
    env.reset(0)
    way = (env.target - env.gripper) / np.linalg.norm(env.target - env.gripper)
    for _ in range(60):
        step = env.step(np.clip(env.gripper + way, -1, 1))
        if step.truncated:
            break
    assert not step.success


def test_the_same_seed_and_actions_give_the_same_pictures() -> None:
    first, second = Reach(), Reach()
    assert (first.reset(7).image == second.reset(7).image).all()
    action = np.array([0.5, -0.5], np.float32)
    assert (first.step(action).observation.image == second.step(action).observation.image).all()
    assert (first.reset(8).image != second.reset(9).image).any()


def test_no_layout_of_training_is_held_out() -> None:
    def layouts(split: str) -> set[bytes]:
        env = Reach(split=split)  # type: ignore[arg-type]
        found = set()
        for seed in range(300):
            observation = env.reset(seed)
            points = np.concatenate([observation.state[None], env.positions])
            found.add(((points + 1) / 2 * 8).astype(np.int64).tobytes())
        return found

    assert not layouts("train") & layouts("heldout")


def test_the_picture_shows_the_object_where_it_lies_and_the_state_does_not_tell() -> None:
    env = Reach(side=64)
    observation = env.reset(3)
    column = int((env.target[0] + 1) / 2 * 64)
    row = int((1 - env.target[1]) / 2 * 64)
    assert tuple(observation.image[row, column]) == COLOURS[env.colours[0]]
    assert env.colours[0] in observation.instruction
    assert observation.state.tolist() == env.gripper.tolist()


def test_the_gripper_moves_at_most_one_step_towards_the_action() -> None:
    assert moved(np.zeros(2, np.float32), np.array([3.0, 4.0], np.float32), 0.5).tolist() == pytest.approx([0.3, 0.4])
    assert moved(np.zeros(2, np.float32), np.array([0.1, 0.0], np.float32), 0.5).tolist() == pytest.approx([0.1, 0.0])


@pytest.mark.parametrize("action", [[0.0], [0.0, float("nan")], [[0.0, 0.0]]])
def test_an_action_that_is_no_position_is_refused(action: list[float]) -> None:
    env = Reach()
    env.reset(0)
    with pytest.raises(ValueError, match="two finite numbers"):
        env.step(np.array(action, np.float32))


def test_an_episode_that_is_over_takes_no_action() -> None:
    env = Reach(max_steps=1)
    with pytest.raises(EpisodeOver):
        env.step(np.zeros(2, np.float32))
    env.reset(0)
    assert env.step(np.zeros(2, np.float32)).truncated
    with pytest.raises(EpisodeOver):
        env.step(np.zeros(2, np.float32))


def test_more_objects_than_colours_are_refused() -> None:
    with pytest.raises(SettingError, match="objects"):
        Reach(objects=9)
