"""The arm as language models play it: a picture and a text in, seven numbers in a tag out."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from envs import registry
from envs.robots.arm import Arm, answer, numbers_of

ROOT = Path(__file__).resolve().parents[4]


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("<action>[0.01, -0.02, 0, 0, 0, 0, 1]</action>", [0.01, -0.02, 0, 0, 0, 0, 1]),
        ("I go left.\n<action> [0, +1e-2, .5, 3., 0, 0, 0.0] ", [0, 0.01, 0.5, 3, 0, 0, 0]),
        ("<action>[1,1,1,1,1,1,1]</action><action>[2,2,2,2,2,2,2]</action>", [2] * 7),
    ],
)
def test_seven_numbers_are_read(text: str, numbers: list[float]) -> None:
    found = numbers_of(text)
    assert found is not None
    assert found.tolist() == numbers


MALFORMED = [
    "", "left", "<action>up</action>", "<action></action>", "<action>[]</action>",
    "<action>[0, 0, 0, 0, 0, 0]</action>", "<action>[0, 0, 0, 0, 0, 0, 0, 0]</action>",
    "<action>0, 0, 0, 0, 0, 0, 1</action>",
    "<action>[0, 0, 0, 0, 0, nan, 1]</action>", "<action>[0, 0, 0, 0, 0, inf, 1]</action>",
    "<action>[0, 0, 0, 0, 0, 1e999, 1]</action>", "<action>[0, 0, 0, 0, 0, 1_0, 1]</action>",
    "<action>[0, 0, 0, 0, 0, true, 1]</action>", "<action>[0, 0, 0, 0, 0, \u0663, 1]</action>",
    "<action>[0, 0, 0, 0, 0, , 1]</action>", "[0, 0, 0, 0, 0, 0, 1]", "<action>[" + "9" * 400 + ", 0, 0, 0, 0, 0, 1]",
]  # fmt: skip


@pytest.mark.parametrize("text", MALFORMED)
def test_anything_else_is_malformed(text: str) -> None:
    assert numbers_of(text) is None


def test_a_malformed_answer_costs_a_step_and_moves_nothing() -> None:
    pytest.importorskip("mujoco")
    env = Arm("reach", camera=False, max_steps=3)
    first = env.reset(0)
    for text in ("left", "<action>[0, 0]</action>"):
        result = env.step(text)
        assert (result.info["parse_ok"], result.info["illegal"]) == (False, True)
        assert (result.reward, result.terminated, result.truncated) == (0.0, False, False)
        assert result.observation.text == first.text
    assert env.step("?").truncated


def test_a_malformed_answer_does_not_open_a_closed_gripper() -> None:
    pytest.importorskip("mujoco")
    env = Arm("pick", camera=False)
    env.reset(0)
    for _ in range(3):
        env.step("<action>[0, 0, 0, 0, 0, 0, 0]</action>")
    assert "opening 0.00" in env.step("?").observation.text


def test_the_text_tells_the_task_and_the_hand_but_never_where_a_cube_is() -> None:
    pytest.importorskip("mujoco")
    env = Arm("place", side=32)
    observation = env.reset(11)
    x, y, z = env.control.world.position
    assert observation.text == (
        f"Task: {env.control.task.instruction}. Gripper at x {x:.3f}, y {y:.3f}, z {z:.3f}, turned 0.00, 0.00, 0.00, "
        "opening 0.39."
    )
    assert observation.image is not None
    assert observation.image.shape == (32, 32, 3)


def test_success_is_worth_one_and_ends_the_episode() -> None:
    pytest.importorskip("mujoco")
    env, rng = Arm("reach", camera=False), random.Random(0)
    env.reset(3)
    rewards = []
    while True:
        result = env.step(env.expert_action(rng))
        rewards.append(result.reward)
        if result.terminated or result.truncated:
            break
    assert (result.success, result.terminated, result.truncated) == (True, True, False)
    assert rewards == [0.0] * (len(rewards) - 1) + [1.0]


def test_a_noisy_expert_draws_from_all_actions() -> None:
    pytest.importorskip("mujoco")
    env = Arm("reach", camera=False)
    env.reset(0)
    quiet = {env.expert_action(random.Random(seed)) for seed in range(5)}
    noisy = {env.expert_action(random.Random(seed), noise=1.0) for seed in range(5)}
    assert len(quiet) == 1
    assert len(noisy) == 5


def test_the_environment_is_listed_and_described_without_mujoco() -> None:
    program = (
        "import sys; sys.modules['mujoco'] = None\n"
        "from envs import registry; print(registry.spec('arm').one_line)\n"
        "import envs.robots.arm_control\n"
        "try: registry.make('arm').reset(0)\n"
        "except ValueError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert "MuJoCo" in done.stdout, done.stderr
    assert "pip install rayward[robots]" in done.stdout


def test_the_task_of_the_settings_decides_the_horizon() -> None:
    assert registry.spec("arm").horizon == 100
    assert registry.spec("arm", task="reach").horizon == 40
    assert registry.spec("arm", task="reach", max_steps=9).horizon == 9
    assert not registry.spec("arm", camera=False).image


def test_an_answer_is_read_back() -> None:
    action = np.array([0.0123, -0.03, 0.0, 0.1, -0.1, 0.25, 1.0])
    assert numbers_of(answer(action)) == pytest.approx(action)
