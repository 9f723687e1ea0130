"""An environment in a process of its own plays what it plays here."""

from __future__ import annotations

import os
import random
from dataclasses import replace

import numpy as np
import pytest

from envs import registry
from envs.base import EpisodeOver, SettingError
from envs.bridges import remote
from envs.bridges.wire import EnvLost, EnvRaised

FAULTY = "tests.unit.envs.bridges.faulty"


def test_episodes_and_the_experts_answers_are_those_of_an_environment_here() -> None:
    there, here = remote.started("tictactoe", {"opponent": "mixed"}), registry.make("tictactoe", opponent="mixed")
    ours, theirs = random.Random(1), random.Random(1)
    assert there.spec == here.spec
    for seed in range(20):
        assert there.reset(seed) == here.reset(seed)
        while True:
            action = there.expert_action(theirs, 0.3, 0.1)
            assert action == here.expert_action(ours, 0.3, 0.1)
            found = there.step(action)
            assert found == here.step(action)
            if found.terminated or found.truncated:
                break
        with pytest.raises(EpisodeOver):
            there.step("?")
    there.close()


def test_pictures_cross_as_they_are() -> None:
    there, here = remote.started("key_door_pixels", {}), registry.make("key_door_pixels")
    first, expected = there.reset(3), here.reset(3)
    assert first.image is not None
    assert expected.image is not None
    assert np.array_equal(first.image, expected.image)
    drawn, own = there.render(), here.render()
    assert drawn is not None
    assert own is not None
    assert np.array_equal(drawn, own)
    there.close()


def test_what_the_environment_raises_names_its_type_and_leaves_it_playable() -> None:
    there = remote.started(f"{FAULTY}:Odd", {})
    assert there.reset(1).text == "lone \ud800"
    with pytest.raises(EnvRaised, match="KeyError: 'level'"):
        there.step("fail")
    result = there.step("?")
    assert replace(result, info={}) == replace(result, reward=0.5, info={})
    assert result.info == {"parse_ok": True, "kind": "{3}", "1": [2]}
    there.close()


def test_an_environment_that_cannot_be_made_leaves_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    start = remote.EnvProcess

    def noted(python: str | None) -> remote.EnvProcess:
        made.append(start(python))
        return made[-1]

    monkeypatch.setattr(remote, "EnvProcess", noted)
    with pytest.raises(SettingError, match="Did you mean 'opponent'"):
        remote.started("tictactoe", {"oponent": "random"})
    with pytest.raises(ProcessLookupError):
        os.kill(made[0].pid, 0)


def test_close_ends_the_process_also_when_the_environment_is_lost() -> None:
    there = remote.started(f"{FAULTY}:Exiting", {})
    pid = there._process.pid
    there.reset(1)
    with pytest.raises(EnvLost):
        there.step("?")
    there.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_call_that_takes_too_long_ends_with_the_process_and_says_which_setting() -> None:
    game = remote.started("tests.unit.envs.bridges.faulty:Hanging", {}, limit_s=60.0)
    game.reset(1)
    for _ in range(2):
        game.step("no move")
    game._limit_s = 0.05
    with pytest.raises(EnvLost, match=r"has not answered step within 0\.05 s \(env\.step_timeout_s\)"):
        game.step("no move")
    game.close()
    assert game._process.join() == -9
