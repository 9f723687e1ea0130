"""Environments are found by a registered name or by `package.module:Class`; a mistake names the nearest."""

from __future__ import annotations

from pathlib import Path

import pytest

from envs import registry
from envs.base import EnvUsageError, SettingError
from envs.games.key_door import KeyDoor
from envs.registry import REGISTRY, UnknownEnvironment

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
        ("zzz", "Environments: bfcl, cave, key_door, tictactoe, wordle"),
        ("no.such.module:Env", "cannot be imported"),
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
