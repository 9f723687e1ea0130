"""BASALT tasks as ours, on a stand-in with the interface of minerl 1.0 and gym."""

from __future__ import annotations

import random
import re
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from envs import registry
from envs.base import Env, EnvUsageError, EpisodeOver, SettingError
from envs.bridges import minerl
from envs.pixels.game_actions import BUTTONS
from envs.registry import UnknownEnvironment

TASK = "MineRLBasaltFindCave-v0"


class Minecraft:
    """A picture whose colour is the number of ticks; ends on ESC, and after `LAST` ticks."""

    LAST = 50

    def __init__(self, name: str) -> None:
        self.name, self.actions, self.seeds, self.closed = name, [], [], False  # type: ignore[var-annotated]
        self.action_space = self

    def noop(self) -> dict[str, Any]:
        return {**dict.fromkeys(BUTTONS, 0), "camera": np.zeros(2), "swapHands": 0, "pickItem": 0}

    def seed(self, seed: int) -> None:
        self.seeds.append(seed)

    def reset(self) -> dict[str, Any]:
        self.actions.clear()
        return self._seen()

    def step(self, action: dict[str, Any]) -> tuple[dict[str, Any], float, bool, dict[str, Any]]:
        self.actions.append(action)
        if action["drop"]:
            return self._seen(), 0.0, True, {"error": "timeout"}
        return self._seen(), 0.0, bool(action["ESC"]) or len(self.actions) == self.LAST, {}

    def _seen(self) -> dict[str, Any]:
        return {"pov": np.full((360, 640, 3), len(self.actions), np.uint8)}

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Minecraft]:
    games: list[Minecraft] = []
    gym = ModuleType("gym")

    def make(name: str) -> Minecraft:
        games.append(Minecraft(name))
        return games[-1]

    gym.make = make  # type: ignore[attr-defined]
    monkeypatch.setattr(minerl, "IDLE", {})
    monkeypatch.setitem(sys.modules, "gym", gym)
    monkeypatch.setitem(sys.modules, "minerl", ModuleType("minerl"))
    return games


def task(**settings: Any) -> Env:
    return registry.make(f"minerl:{TASK}", **settings)


def test_the_picture_is_scaled_and_the_seed_is_given_to_minecraft(made: list[Minecraft]) -> None:
    env = task(width=64, height=36)
    first = env.reset(2**31 + 5)
    assert made[0].seeds == [5]
    assert first.image is not None
    assert (first.image.shape, first.image.dtype) == ((36, 64, 3), np.uint8)
    assert first.text == "Find a cave, walk into it, and press ESC inside. Steps left: 600."
    assert env.render().shape == (360, 640, 3)


def test_minecraft_is_started_once_for_the_episodes_of_a_process(made: list[Minecraft]) -> None:
    for seed in range(3):
        env = task()
        env.reset(seed)
        env.close()
    assert (len(made), made[0].seeds, made[0].closed) == (1, [0, 1, 2], False)


def test_a_minecraft_that_is_lost_is_a_fault_and_no_lost_episode(made: list[Minecraft]) -> None:
    env = task()
    env.reset(0)
    with pytest.raises(RuntimeError, match="Minecraft was lost: timeout"):
        env.step('{"drop": 1}')
    env.close()
    assert made[0].closed
    task()
    assert len(made) == 2, "the lost one was played on"


def test_an_older_minerl_is_refused(made: list[Minecraft], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Minecraft, "noop", lambda self: {"attack": 0, "camera": np.zeros(2)})
    with pytest.raises(EnvUsageError, match=r"this minerl is older than 1\.0"):
        task()


def test_an_answer_lasts_some_ticks_and_turns_the_camera_in_the_first(made: list[Minecraft]) -> None:
    env = task(frame_skip=3)
    env.reset(0)
    result = env.step('{"forward": 1, "camera": [0, 15]}')
    assert [action["forward"] for action in made[0].actions] == [1, 1, 1]
    assert [action["camera"].tolist() for action in made[0].actions] == [[0, 15], [0, 0], [0, 0]]
    assert made[0].actions[0]["swapHands"] == 0, "keys that only Minecraft has are not pressed"
    assert (result.observation.image == 3).all()
    assert (result.reward, result.terminated, result.truncated) == (0.0, False, False)


def test_what_is_no_action_presses_nothing_and_is_told(made: list[Minecraft]) -> None:
    env = task()
    env.reset(0)
    result = env.step("walk on")
    assert (result.info["parse_ok"], result.info["illegal"]) == (False, True)
    assert not any(action[key] for action in made[0].actions for key in BUTTONS)


@pytest.mark.parametrize("esc_is_success", [False, True])
def test_esc_ends_an_episode_and_is_success_only_where_that_is_set(made: list[Minecraft], esc_is_success: bool) -> None:
    env = task(esc_is_success=esc_is_success)
    env.reset(0)
    result = env.step('{"ESC": 1}')
    assert (result.terminated, result.success, result.reward) == (True, esc_is_success, float(esc_is_success))
    with pytest.raises(EpisodeOver):
        env.step("{}")


def test_the_last_step_truncates_and_minecrafts_own_end_is_no_success(made: list[Minecraft]) -> None:
    short = task(max_steps=2, esc_is_success=True)
    short.reset(0)
    assert not short.step("{}").truncated
    assert short.step("{}").truncated
    long = task(frame_skip=Minecraft.LAST, esc_is_success=True)
    long.reset(0)
    died = long.step("{}")
    assert (died.terminated, died.truncated, died.success) == (True, False, False)


def test_what_stands_for_an_expert_answers_by_the_grammar(made: list[Minecraft]) -> None:
    env, rng = task(), random.Random(0)
    env.reset(0)
    assert all(re.fullmatch(env.spec.action_regex, env.expert_action(rng)) for _ in range(20))


def test_other_tasks_and_settings_are_refused(made: list[Minecraft]) -> None:
    with pytest.raises(UnknownEnvironment, match="no BASALT task 'MineRLTreechop-v0'; the tasks are MineRLBasalt"):
        registry.make("minerl:MineRLTreechop-v0")
    with pytest.raises(SettingError, match="frame_skip must be at least 1, got 0"):
        task(frame_skip=0)


def test_without_the_library_it_is_told_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "minerl", None)
    monkeypatch.setitem(sys.modules, "gym", ModuleType("gym"))
    with pytest.raises(EnvUsageError, match=r"needs the library minerl and Java 8 .* then set env\.python"):
        task()
