"""Environments of another package: its wheel, with one class and an entry point for each, beside rayward's wheel."""

import sys
from pathlib import Path

import pytest

from tests.packaging.environments import Installation, checked, install

PYPROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "their-games"
version = "1.2"
dependencies = ["rayward"]

[project.entry-points."rayward.environments"]
their_game = "their_games.coin:Coin"
broken = "their_games.simulated:Simulated"
"""
COIN = """
import random

import numpy as np

from envs.base import Env, EnvSpec, EpisodeOver, Observation, StepResult


class Coin(Env):
    def __init__(self, sides: int = 2) -> None:
        self.spec = EnvSpec("their_game", "guess a side", "", "<side>[0-9]</side>", 1, 1.0, 0.5)
        self._sides, self._over = sides, True

    def reset(self, seed: int) -> Observation:
        self._side, self._over = int(np.int64(random.Random(seed).randrange(self._sides))), False
        return Observation(f"{self._sides} sides")

    def step(self, action: str) -> StepResult:
        if self._over:
            raise EpisodeOver("call reset")
        self._over = True
        won = action == f"<side>{self._side}</side>"
        return StepResult(Observation("over"), float(won), True, False, won, {"parse_ok": True, "illegal": False})

    def expert_action(self, rng: random.Random, noise: float = 0.0, illegal_noise: float = 0.0) -> str:
        return f"<side>{self._side}</side>"
"""
PLAY = """
from envs import registry
game = registry.make("their_game", sides=6)
first = game.reset(3)
print(first.text, game.step(game.expert_action(None)).success, type(game).__module__)
"""


@pytest.fixture(scope="module")
def with_theirs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """rayward and the wheel of a package with two environments, of which one imports what is not installed."""
    folder = tmp_path_factory.mktemp("plugins")
    sources = {"__init__": "", "coin": COIN, "simulated": "import a_simulator_that_is_missing"}
    package = folder / "their-games" / "their_games"
    package.mkdir(parents=True)
    for module, source in sources.items():
        (package / f"{module}.py").write_text(source)
    (package.parent / "pyproject.toml").write_text(PYPROJECT)
    checked(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(package.parent))
    return install(wheel, folder, *folder.glob("their_games-*.whl"))


def test_an_environment_of_another_package_is_made_by_its_name(with_theirs: Installation) -> None:
    done = with_theirs.run("python", "-c", PLAY)

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "6 sides True their_games.coin"


def test_the_list_of_environments_shows_it_and_what_is_broken(with_theirs: Installation) -> None:
    done = with_theirs.run("rayward", "envs")

    assert done.returncode == 0, done.stderr
    printed = " ".join(done.stdout.replace("│", " ").split())
    assert "their_game text <side>…</side> 1 0.5 guess a side" in printed
    assert "tictactoe" in printed
    assert "unusable" in printed
    assert "their-games 1.2" in printed


def test_an_environment_that_cannot_be_imported_is_refused_with_package_and_cause(with_theirs: Installation) -> None:
    done = with_theirs.run("rayward", "play", "--env", "broken")

    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    said = " ".join(done.stderr.split())
    assert (
        "environment 'broken' of the package their-games 1.2 (their_games.simulated:Simulated) cannot be loaded" in said
    )
    assert "ModuleNotFoundError: No module named 'a_simulator_that_is_missing'" in said
