"""Environments are found by a registered name, by another package's entry point, by an adapter's prefix or by
`package.module:Class`; a mistake names the nearest."""

from __future__ import annotations

import inspect
import pickle
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

from envs import registry
from envs.base import EnvUsageError, SettingError
from envs.games.key_door import KeyDoor
from envs.games.tictactoe import TicTacToe
from envs.registry import REGISTRY, BrokenPlugin, UnknownEnvironment

OWN = """
from envs.games.tictactoe import TicTacToe

class Mine(TicTacToe):
    pass
"""


@pytest.mark.parametrize("name", REGISTRY)
def test_every_registered_environment_is_made_under_its_own_name(name: str) -> None:
    assert registry.make(name).spec.name == name


def test_settings_reach_the_constructor() -> None:
    assert registry.make("key_door", max_steps=7).spec.horizon == registry.spec("key_door", max_steps=7).horizon == 7


def test_a_class_outside_of_the_registry_is_named_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_games.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    assert type(registry.make("my_games:Mine")).__name__ == "Mine"
    assert registry.load("envs.games.key_door:KeyDoor") is KeyDoor


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("tictacto", "Did you mean 'tictactoe'"),
        ("zzz", "Environments: arm, bfcl, cave, key_door, key_door_pixels, tictactoe, wordle"),
        ("zzz", "wordle, gym:NAME"),
        ("no.such.module:Env", "cannot be imported"),
        ("gymm:CartPole-v1", "No module named 'gymm'. Names with a prefix: gym:NAME"),
        ("envs.games.key_door:Nothing", "cannot be imported"),
    ],
)
def test_an_unknown_name_says_what_there_is(name: str, advice: str) -> None:
    with pytest.raises(UnknownEnvironment, match=advice):
        registry.make(name)


def test_an_unknown_setting_is_answered_by_the_nearest() -> None:
    with pytest.raises(SettingError, match=r"KeyDoor has no setting 'max_step'\. Did you mean 'max_steps'"):
        registry.make("key_door", max_step=3)


def test_both_mistakes_are_ones_that_a_user_can_mend() -> None:
    assert issubclass(UnknownEnvironment, EnvUsageError)
    assert issubclass(SettingError, EnvUsageError)


class Level(TicTacToe):
    """An adapter: what follows the colon is its first parameter."""

    blocking = True

    def __init__(self, level: str, /, opponent: str = "random", split: Any = "all") -> None:
        super().__init__(opponent, split=split)
        self.level = level


@pytest.fixture
def adapter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.ADAPTERS, "levels", f"{__name__}:Level")


@pytest.mark.usefixtures("adapter")
def test_a_prefix_gives_the_rest_of_the_name_to_its_adapter() -> None:
    made = registry.make("levels:of/others:v1", opponent="minimax")

    assert made.level == "of/others:v1"  # type: ignore[attr-defined]
    assert made.spec.best_success == 0.0  # against minimax


@pytest.mark.usefixtures("adapter")
def test_what_a_prefix_names_is_used_as_a_class_is() -> None:
    found = registry.load("levels:1")

    assert found.blocking
    assert list(inspect.signature(found).parameters) == ["opponent", "split"]
    assert registry.evaluation_settings("levels:1", {}, None) == {"split": "heldout"}
    assert pickle.loads(pickle.dumps(found))(opponent="minimax").level == "1"
    with pytest.raises(SettingError, match=r"levels:1 has no setting 'oponent'\. Did you mean 'opponent'"):
        registry.make("levels:1", oponent="minimax")
    with pytest.raises(SettingError, match="no setting 'level'"):
        registry.make("levels:1", level="2")


def installed(folder: Path, monkeypatch: pytest.MonkeyPatch, package: str, point: str, **modules: str) -> None:
    """A package with an entry point, as pip leaves it."""
    for name, source in modules.items():
        (folder / f"{name}.py").write_text(source)
    about = folder / f"{package}-1.2.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.2\n")
    (about / "entry_points.txt").write_text(f"[{registry.ENTRY_POINTS}]\n{point}\n")
    monkeypatch.syspath_prepend(folder)


def test_the_environment_of_an_installed_package_is_found_by_its_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(tmp_path, monkeypatch, "their_games", "theirs = theirs_alone:Mine", theirs_alone=OWN)

    assert "theirs" in registry.names()
    assert type(registry.make("theirs", turn_cap=3)).__name__ == "Mine"


def test_the_installed_packages_are_looked_through_once_not_for_every_episode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It took longer than the episodes: each makes an environment."""
    installed(tmp_path, monkeypatch, "their_games", "theirs = theirs_once:Mine", theirs_once=OWN)
    looked: list[str] = []

    def counted(group: str) -> Any:
        looked.append(group)
        return entry_points(group=group)

    monkeypatch.setattr(registry, "entry_points", counted)

    for name in ("theirs", "theirs", "envs.games.key_door:KeyDoor", "gym:CartPole-v1"):
        registry.load(name)

    assert looked == [registry.ENTRY_POINTS]


@pytest.mark.parametrize(
    ("point", "source", "cause"),
    [
        ("Game", "import no_such_simulator", "ModuleNotFoundError: No module named 'no_such_simulator'"),
        ("Game", "1 / 0", "ZeroDivisionError: division by zero"),
        ("Game", "", "AttributeError: .*has no attribute 'Game'"),
        ("Game", "Game = len", "is no class on envs.base.Env, but <built-in function len>"),
    ],
)
def test_an_environment_of_a_package_that_cannot_be_loaded_names_the_package_and_the_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str, source: str, cause: str
) -> None:
    module = f"in_{tmp_path.name}"  # another one for each case: Python imports a module once
    installed(tmp_path, monkeypatch, "broken_games", f"broken = {module}:{point}", **{module: source})

    with pytest.raises(BrokenPlugin, match=rf"'broken' of the package broken_games 1\.2 \({module}:Game\).*{cause}"):
        registry.make("broken")
    assert issubclass(BrokenPlugin, EnvUsageError)
    assert registry.make("key_door").spec.name == "key_door"


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("wordle", "wordle"),
        ("vf-wordle", "wordle"),
        ("vf_bfcl", "bfcl"),
        ("vf-tic-tac-toe", "tictactoe"),
        ("key-door-pixels", "key_door_pixels"),
        ("VF-Key-Door", "key_door"),
        ("gym:CartPole-v1", "gym:CartPole-v1"),
    ],
)
def test_an_environment_is_meant_by_the_name_that_the_library_verifiers_would_give_it(given: str, name: str) -> None:
    assert registry.named(given) == name


def test_a_name_that_means_no_environment_says_which_there_are() -> None:
    with pytest.raises(UnknownEnvironment, match=r"no environment 'vf-wordel'\. Did you mean 'wordle'.*tictactoe"):
        registry.named("vf-wordel")


def test_a_packages_own_name_counts_before_what_it_might_mean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(tmp_path, monkeypatch, "theirs", "vf-bfcl = their_calls:Game", their_calls="")
    assert registry.named("vf-bfcl") == "vf-bfcl"
