"""Every environment of the registry passes Gymnasium's own check, and plays as it does without the view."""

from __future__ import annotations

import pickle
import random
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from envs import registry
from envs.base import Env, EnvSpec, Observation, StepResult
from envs.bridges import gymnasium_view
from tests.unit.envs.registered import NAMES, parameter

IDS = [parameter(i, i.removeprefix("rayward/").removesuffix("-v0")) for i in gymnasium_view.register()]
ROOT = Path(__file__).resolve().parents[4]


class Pixels(Env):
    """A game with an image, which draws into the same array again and again."""

    spec = EnvSpec("pixels", "an image", "", ".*", 4, 1.0, 1.0, image=True)

    def reset(self, seed: int) -> Observation:
        self._turns = 0
        self._canvas = np.full((6, 4, 3), random.Random(seed).randrange(256), np.uint8)
        return Observation("look", image=self._canvas)

    def step(self, action: str) -> StepResult:
        self._turns += 1
        self._canvas += 1
        return StepResult(Observation("look", image=self._canvas), 0.0, self._turns == 4, False, False, {})

    def expert_action(self, rng: random.Random, noise: float = 0.0, illegal_noise: float = 0.0) -> str:
        return "x"

    def render(self) -> np.ndarray:
        return self._canvas.copy()


def same(seen: Any, expected: Observation) -> bool:
    """Whether the view shows what the environment showed: its text, beside an image where there is one."""
    if expected.image is None:
        return bool(seen == expected.text)
    return bool(seen["text"] == expected.text and (seen["image"] == expected.image).all())


@pytest.mark.parametrize("identifier", IDS)
def test_every_environment_passes_check_env_without_a_warning(identifier: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gymnasium.make(identifier).unwrapped)


@pytest.mark.parametrize("name", NAMES)
def test_a_seed_gives_the_episode_that_it_gives_without_the_view(name: str) -> None:
    bare, viewed, rng = registry.make(name), gymnasium_view.make(name), random.Random(0)
    first = bare.reset(5)
    seen, more = viewed.reset(seed=5)
    assert same(seen, first)
    assert (more.get("tools", ()), more.get("earlier", ())) == (first.tools, first.earlier)
    for _ in range(bare.spec.horizon):
        action = bare.expert_action(rng)
        expected = bare.step(action)
        observation, reward, terminated, truncated, info = viewed.step(action)
        assert same(observation, expected.observation)
        assert reward == expected.reward
        assert (terminated, truncated) == (expected.terminated, expected.truncated)
        assert info == {**expected.info, "success": expected.success}
        if terminated or truncated:
            return
    pytest.fail(f"{name} did not end within its horizon")


def test_without_a_seed_the_episodes_differ_but_repeat_after_one_seeded_reset() -> None:
    def texts(env: Any) -> list[str]:
        env.reset(seed=3)
        return [env.reset()[0] for _ in range(8)]

    first = texts(gymnasium_view.make("key_door"))
    assert len(set(first)) > 1
    assert texts(gymnasium_view.make("key_door")) == first


def test_an_image_comes_beside_the_text_and_is_the_callers_own() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*alternative render modes.*")  # only for what is registered
        check_env(gymnasium_view.view(Pixels(), render_mode="rgb_array"))
    env = gymnasium_view.view(Pixels())
    before, _ = env.reset(seed=1)
    value = before["image"].copy()
    env.step("x")
    assert (before["image"] == value).all()
    assert env.observation_space.contains(before)


def test_a_render_mode_that_the_game_lacks_is_named() -> None:
    with pytest.raises(ValueError, match="bfcl has no render mode 'rgb_array'; it has: none"):
        gymnasium_view.make("bfcl", render_mode="rgb_array")


def test_a_view_goes_on_after_pickling() -> None:
    env = gymnasium_view.make("tictactoe")
    env.reset(seed=3)
    copy = pickle.loads(pickle.dumps(env))
    assert copy.step("<move>5</move>") == env.step("<move>5</move>")


def test_importing_the_environments_and_the_view_leaves_gymnasium_out() -> None:
    program = "import sys, envs.registry, envs.bridges.gymnasium_view; print('gymnasium' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "False", done.stderr
