"""The rules of the cave tasks."""

from __future__ import annotations

import pickle
import random
import re
from typing import Any

import numpy as np
import pytest

from envs.base import EpisodeOver, SettingError, StepResult, in_split
from envs.pixels.cave import Cave
from envs.pixels.cave_world import GOALS, Task
from envs.pixels.game_actions import no_op
from envs.pixels.scene import Pose
from envs.pixels.textures import CAVE_FLOOR, GRASS, WATER
from tests.unit.envs.games.experts import success

TASKS: list[Task] = list(GOALS)
NOTHING: dict[str, Any] = {}


def on(env: Cave, tile: int) -> Cave:
    """The player in the middle of a piece of ground of this kind that has the same around it, looking north."""
    floor = env.world.scene.floor
    for y in range(1, len(floor) - 1):
        for x in range(1, len(floor) - 1):
            around = floor[y - 1 : y + 2, x - 1 : x + 2]
            walls = env.world.scene.walls[y - 1 : y + 2, x - 1 : x + 2]
            wanted = around[1, 1] if tile == CAVE_FLOOR else around
            if (wanted == tile).all() and (tile == CAVE_FLOOR or not walls.any()):
                env.pose = Pose(x + 0.5, y + 0.5)
                return env
    raise AssertionError


def started(seed: int = 0, **settings: Any) -> Cave:
    env = Cave(side=8, **settings)
    env.reset(seed)
    return env


def moved(env: Cave, action: dict[str, Any]) -> tuple[float, float]:
    """How far (east, south) an action goes from where the player is now."""
    before = env.pose
    env.act(action)
    return env.pose.x - before.x, env.pose.y - before.y


@pytest.mark.parametrize("task", TASKS)
def test_the_expert_reaches_every_goal_in_time(task: Task) -> None:
    assert success(Cave(task=task, side=8), 0.0, 200) >= 0.97


def test_turns_of_fifteen_degrees_are_enough_to_reach_it() -> None:
    assert success(Cave(task="enter_pen", form="words", side=8), 0.0, 40) >= 0.97


@pytest.mark.parametrize("task", TASKS)
def test_the_expert_finds_back_after_moves_at_random_and_chance_alone_does_not(task: Task) -> None:
    assert success(Cave(task=task, side=8), 0.2, 20) >= 0.8
    assert success(Cave(task=task, side=8), 1.0, 20) < 0.2


def test_forward_goes_where_the_view_turns_to_in_the_same_step() -> None:
    assert moved(on(started(), GRASS), {"forward": 1}) == pytest.approx((0.0, -0.4))
    assert moved(on(started(), GRASS), {"forward": 1, "camera": [0, 90]}) == pytest.approx((0.4, 0.0))
    assert moved(on(started(), GRASS), {"back": 1}) == pytest.approx((0.0, 0.4))
    assert moved(on(started(), GRASS), {"left": 1}) == pytest.approx((-0.4, 0.0))


def test_sprinting_sneaking_and_water_change_the_pace_and_two_ways_at_once_do_not() -> None:
    assert moved(on(started(), GRASS), {"forward": 1, "sprint": 1}) == pytest.approx((0.0, -0.5))
    assert moved(on(started(), GRASS), {"back": 1, "sprint": 1}) == pytest.approx((0.0, 0.4))
    assert moved(on(started(), GRASS), {"forward": 1, "sneak": 1}) == pytest.approx((0.0, -0.15))
    assert moved(on(started(), WATER), {"forward": 1}) == pytest.approx((0.0, -0.2))
    assert np.hypot(*moved(on(started(), GRASS), {"forward": 1, "right": 1})) == pytest.approx(0.4)
    assert moved(on(started(), GRASS), {"forward": 1, "back": 1}) == pytest.approx((0.0, 0.0))


def test_keys_without_a_use_here_are_taken_and_do_nothing() -> None:
    env = on(started(), GRASS)
    assert moved(env, {"jump": 1, "attack": 1, "use": 1, "drop": 1, "inventory": 1, "hotbar.5": 1}) == (0.0, 0.0)
    assert env.act(no_op()).info["parse_ok"] is True


def test_the_camera_stops_at_sixty_degrees_and_turns_all_around() -> None:
    env = started()
    env.pose = Pose(env.pose.x, env.pose.y, 350.0)
    env.act({"camera": [500, 20]})
    assert (env.pose.pitch_deg, env.pose.yaw_deg) == (60.0, 10.0)
    env.act({"camera": [-100, -20]})
    assert (env.pose.pitch_deg, env.pose.yaw_deg) == (-40.0, 350.0)
    env.act({"camera": [0, 1000]})  # clamped to half a turn
    assert env.pose.yaw_deg == 170.0


def test_esc_in_the_cave_succeeds_and_outside_of_it_ends_the_episode_without() -> None:
    inside = on(started(), CAVE_FLOOR).step('{"ESC": 1}')
    assert (inside.reward, inside.terminated, inside.truncated, inside.success) == (1.0, True, False, True)
    outside = on(started(), GRASS).step('{"ESC": 1}')
    assert (outside.reward, outside.terminated, outside.truncated, outside.success) == (0.0, True, False, False)


def test_standing_still_in_the_cave_succeeds_after_the_steps_that_are_set() -> None:
    env = on(started(hold_steps=3), CAVE_FLOOR)
    assert [env.act(NOTHING).success for _ in range(3)] == [False, False, True]
    with pytest.raises(EpisodeOver):
        env.act(NOTHING)


def test_answers_that_are_no_action_are_not_standing_still() -> None:
    env = on(started(hold_steps=2), CAVE_FLOOR)
    assert [env.step(text).success for text in ("?", "?", "?", "{}", "?", "{}", "{}")] == [False] * 6 + [True]


def test_the_water_and_the_pen_are_reached_by_being_there() -> None:
    for task, tile in (("reach_water", WATER), ("enter_pen", GOALS["enter_pen"])):
        env = on(started(task=task), GRASS)
        assert not env.act(NOTHING).success
        result = on(env, tile).act(NOTHING)
        assert (result.reward, result.terminated, result.success) == (1.0, True, True)


def test_a_malformed_answer_is_a_step_in_which_nothing_happens() -> None:
    env = started(max_steps=3)
    before = env.pose
    results: list[StepResult] = [env.step('{"fly": 1}'), env.act({"forward": 7}), env.step("\ud800")]
    assert [(r.info["parse_ok"], r.info["illegal"]) for r in results] == [(False, True)] * 3
    assert env.pose == before
    assert (results[-1].terminated, results[-1].truncated, results[-1].reward) == (False, True, 0.0)


def test_each_step_costs_what_is_set() -> None:
    env = on(started(step_cost=0.01), CAVE_FLOOR)
    assert env.act(NOTHING).reward == -0.01
    assert env.act({"ESC": 1}).reward == 0.99


def test_the_observation_tells_the_task_and_shows_a_picture_but_never_the_map() -> None:
    env = Cave(task="enter_pen", side=48, max_steps=60)
    first = env.reset(0)
    assert first.text == "Walk through the gate into the fenced pen. Steps left: 60."
    assert first.image is not None
    assert (first.image.shape, first.image.dtype) == ((48, 48, 3), np.dtype(np.uint8))
    assert env.render().shape == (384, 384, 3)
    assert env.spec.extra["minerl_task"] is None
    assert Cave().spec.extra["minerl_task"] == "MineRLBasaltFindCave-v0"


def test_the_dictionary_and_its_json_do_the_same() -> None:
    by_text, by_action = started(3), started(3)
    said = by_text.step('{"reasoning": "on", "action": {"forward": 1, "camera": [3, 20]}}')
    done = by_action.act({**no_op(), "forward": np.int64(1), "camera": np.array([3, 20], np.float32)})
    assert by_text.pose == by_action.pose
    assert (said.observation.image == done.observation.image).all()


def test_an_episode_of_pictures_goes_on_after_pickling() -> None:
    env, rng = Cave(), random.Random(0)
    pickle.loads(pickle.dumps(env)).reset(0)
    env.reset(5)
    for _ in range(6):
        env.step(env.expert_action(rng))
    copy = pickle.loads(pickle.dumps(env))
    for _ in range(5):
        action = env.expert_action(rng)
        ours, theirs = env.step(action), copy.step(action)
        assert (ours.observation.image == theirs.observation.image).all()
        assert (ours.observation.text, ours.reward) == (theirs.observation.text, theirs.reward)


def test_the_same_seed_gives_the_same_pictures_to_the_end_of_the_episode() -> None:
    def played(seed: int) -> list[bytes]:
        env, rng = Cave(form="words"), random.Random(seed)
        first = env.reset(seed).image
        assert first is not None
        frames = [first.tobytes()]
        while True:
            result = env.step(env.expert_action(rng, 0.3, 0.02))
            assert result.observation.image is not None
            frames.append(result.observation.image.tobytes())
            if result.terminated or result.truncated:
                return frames

    assert [played(seed) for seed in range(5)] == [played(seed) for seed in range(5)]


def test_no_held_out_layout_is_ever_trained_on() -> None:
    def layouts(split: Any, seeds: int) -> list[Any]:
        env = Cave(split=split, side=8)
        found = []
        for seed in range(seeds):
            env.reset(seed)
            found.append(env.layout)
        return found

    trained, held = layouts("train", 300), layouts("heldout", 150)
    assert not set(trained) & set(held)
    assert len(set(held)) > 140
    assert {in_split(f"cave/{layout}", "heldout") for layout in layouts("all", 100)} == {True, False}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"task": "find_gold"}, "task must be one of find_cave, reach_water, enter_pen"),
        ({"form": "xml"}, "form must be one of json, words"),
        ({"side": 4}, "side must be at least 8"),
        ({"max_steps": 0}, "max_steps must be at least 1"),
        ({"hold_steps": 0}, "hold_steps must be at least 1"),
        ({"step_cost": -1.0}, "step_cost must be"),
        ({"step_cost": float("nan")}, "step_cost must be"),
        ({"split": "test"}, "split must be one of"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        Cave(**settings)


def test_the_words_grammar_accepts_every_answer_of_the_expert() -> None:
    env, rng = Cave(form="words", side=8), random.Random(0)
    for seed in range(10):
        env.reset(seed)
        while True:
            action = env.expert_action(rng, 0.3, 0.02)
            assert re.fullmatch(env.spec.action_regex, action)
            result = env.step(action)
            if result.terminated or result.truncated:
                break
