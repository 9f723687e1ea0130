"""Packages of an environment are installed for it alone, once, by the real pip; from a wheel that is made here."""

from __future__ import annotations

import importlib.util
import random
import subprocess
import sysconfig
import zipfile
from pathlib import Path
from typing import Any

import pytest

from configs.base import ConfigError
from configs.rollouts import EnvConfig
from configs.training import TrainConfig
from training.environments import packages
from training.environments.packages import PackagesNotInstalled, installed, interpreter_of
from training.environments.processes import opened

DICE = """
import random
import dice_library

from envs.base import Env, EnvSpec, Observation, StepResult


class Dice(Env):
    def __init__(self):
        self.spec = EnvSpec("dice", "guess a number", "", "[1-6]", 1, 1.0, 1 / 6)

    def reset(self, seed):
        self._rolled = dice_library.roll(random.Random(seed))
        return Observation("Guess.")

    def step(self, action):
        won = action == str(self._rolled)
        return StepResult(Observation("over"), float(won), True, False, won, {"parse_ok": True, "illegal": False})

    def expert_action(self, rng, noise=0.0, illegal_noise=0.0):
        return str(self._rolled)
"""


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """numpy is borrowed from here by a .pth file, because nothing is downloaded."""
    monkeypatch.setattr(packages, "NEEDED", ())
    monkeypatch.setattr(packages, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(installed, "__defaults__", (tmp_path / "cache",))
    info = "dice_game-1.0.dist-info"
    files = {
        "dice_game.py": DICE,
        "dice_library.py": "def roll(rng):\n    return rng.randrange(1, 7)\n",
        "borrowed.pth": sysconfig.get_path("purelib") + "\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: dice-game\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    path = tmp_path / "dice_game-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in (files | {f"{info}/RECORD": record}).items():
            archive.writestr(name, text)
    return path


def test_an_environment_plays_with_packages_that_only_it_has(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = EnvConfig(name="dice_game:Dice", packages=["--no-index", str(wheel)])
    for _ in range(2):
        game = opened(config, {})
        assert game.reset(5).text == "Guess."
        assert game.step(game.expert_action(random.Random(0))).success
        game.close()
        monkeypatch.setattr(subprocess, "run", _never)  # the second time, nothing is installed
    assert importlib.util.find_spec("dice_library") is None, "it came into the trainer's environment"


def _never(*arguments: Any, **settings: Any) -> None:
    raise AssertionError("it was installed again")


def test_what_cannot_be_installed_is_told_with_what_pip_said_and_tried_again(wheel: Path) -> None:
    for _ in range(2):
        with pytest.raises(PackagesNotInstalled, match=r"no-such-package \(env\.packages\)(.|\n)*No matching"):
            interpreter_of(EnvConfig(packages=["--no-index", "no-such-package"]))


def test_an_installation_has_a_deadline(wheel: Path) -> None:
    config = EnvConfig(packages=["--no-index", str(wheel)], install_timeout_s=0.001)
    with pytest.raises(PackagesNotInstalled, match=r"took longer than 0\.001 s: raise env\.install_timeout_s"):
        interpreter_of(config)


def test_an_interpreter_that_is_named_is_taken_as_it_is() -> None:
    assert interpreter_of(EnvConfig(python="/venv/bin/python")) == "/venv/bin/python"
    assert interpreter_of(EnvConfig()) is None


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"packages": ["a"], "python": "/p"}, r"env\.packages are installed for an interpreter of their own"),
        (
            {"packages": ["a"], "isolation": "none"},
            r"env\.packages runs environments in processes",
        ),
    ],
)
def test_packages_without_a_process_of_their_own_are_no_configuration(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        TrainConfig.parse({"env": settings})
