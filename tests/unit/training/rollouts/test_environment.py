"""An environment that cannot be trained or evaluated in is named before anything starts."""

from __future__ import annotations

import random
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.base import UserError
from configs.training import TrainConfig
from envs import registry
from envs.base import Env, EnvSpec, EnvUsageError, Observation, SettingError, StepResult
from envs.registry import evaluation_settings, make
from training.commands import app
from training.rollouts.environment import EnvironmentUnusable, check_environment
from training.rollouts.player import PlaySettings

TINY = "configs/train/tictactoe_tiny.yaml"


class Plain(Env):
    """As in the README: no setting at all."""

    def __init__(self) -> None:
        self.spec = EnvSpec("plain", "one turn", "", ".*", 1, 1.0, 1.0)

    def reset(self, seed: int) -> Observation:
        return Observation("?")

    def step(self, action: str) -> StepResult:
        return StepResult(Observation("over"), 1.0, True, False, True, {"parse_ok": True, "illegal": False})

    def expert_action(self, rng: random.Random, noise: float = 0.0, illegal_noise: float = 0.0) -> str:
        return "!"


class Easy(Plain):
    """Breaks in evaluation only."""

    def __init__(self, split: str = "all") -> None:
        super().__init__()
        self._split = split

    def reset(self, seed: int) -> Observation:
        if self._split == "heldout":
            raise KeyError("no held-out levels")
        return super().reset(seed)


class Hanging(Plain):
    """Its reset waits for what never comes; the test lets it go."""

    released = threading.Event()

    def reset(self, seed: int) -> Observation:
        self.released.wait()
        return super().reset(seed)


class Open(Plain):
    """Passes whatever it is given to a simulator."""

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.given = settings


def config(cls: type[Env], **env: Any) -> TrainConfig:
    return TrainConfig.parse({"env": {"name": f"{__name__}:{cls.__name__}", **env}})


def test_an_environment_without_a_split_is_evaluated_with_its_training_settings_and_that_is_said() -> None:
    """It trained all its steps and then failed: the default {split: heldout} was no setting of it."""
    said: list[str] = []

    check_environment(config(Plain), said.append)

    assert PlaySettings.for_evaluation(config(Plain)).env.kwargs == {}
    assert len(said) == 1
    assert "has no setting 'split': evaluation plays the same situations as training" in said[0]


def test_the_default_is_the_held_out_split_where_there_is_one_and_survives_a_dump() -> None:
    said: list[str] = []
    settings = TrainConfig.load(TINY)
    again = TrainConfig.parse(settings.dump())

    check_environment(again, said.append)

    assert PlaySettings.for_evaluation(again).env.kwargs == {"split": "heldout"}
    assert said == []


def test_an_evaluation_whose_situations_training_plays_too_is_told() -> None:
    told: list[str] = []
    check_environment(TrainConfig.parse({"env": {"name": "wordle"}}), told.append)
    assert "also those of the evaluation (split heldout)" in told[0]
    told.clear()
    check_environment(TrainConfig.parse({"env": {"name": "wordle", "kwargs": {"split": "train"}}}), told.append)
    assert told == []


def test_what_a_user_wrote_and_the_class_does_not_take_is_an_error_that_names_the_nearest() -> None:
    with pytest.raises(SettingError, match="Plain has no setting 'split'"):
        check_environment(config(Plain, eval_kwargs={"split": "heldout"}), print)
    with pytest.raises(SettingError, match="Did you mean 'split'"):
        check_environment(config(Easy, eval_kwargs={"spilt": "train"}), print)


def test_an_environment_that_breaks_in_evaluation_only_is_found_too() -> None:
    with pytest.raises(EnvironmentUnusable, match=r"for evaluation with settings .*heldout.*KeyError: .no held-out"):
        check_environment(config(Easy), print)
    assert issubclass(EnvironmentUnusable, UserError)


def test_a_class_that_takes_any_setting_gets_what_was_configured_and_no_split_of_ours() -> None:
    assert make(f"{__name__}:Open", level=3).given == {"level": 3}  # type: ignore[attr-defined]
    assert evaluation_settings(f"{__name__}:Open", {"level": 3}, None) == {"level": 3}
    assert evaluation_settings(f"{__name__}:Open", {"level": 3}, {"level": 4}) == {"level": 4}


def test_an_environment_of_another_library_is_checked_as_ours_are() -> None:
    said: list[str] = []
    settings = TrainConfig.parse({"env": {"name": "gym:FrozenLake-v1", "kwargs": {"is_slippery": False}}})

    check_environment(settings, said.append)

    assert PlaySettings.for_evaluation(settings).env.kwargs == {"is_slippery": False}
    assert "gym:FrozenLake-v1 begins alike with seeds 0 and 1" in said[0]
    assert "gym:FrozenLake-v1 has no setting 'split'" in said[1]
    with pytest.raises(SettingError, match="unexpected keyword argument 'speed'"):
        check_environment(TrainConfig.parse({"env": {"name": "gym:FrozenLake-v1", "kwargs": {"speed": 1}}}), print)
    with pytest.raises(EnvUsageError, match="Did you mean: `FrozenLake`"):
        check_environment(TrainConfig.parse({"env": {"name": "gym:FrozenLak-v1"}}), print)


class Unseeded(Plain):
    """A foreign environment: every reset goes to the next level, whatever the seed."""

    levels = 0

    def __init__(self, name: str, /) -> None:
        super().__init__()

    def reset(self, seed: int) -> Observation:
        Unseeded.levels += 1
        return Observation(f"level {self.levels}")


class Seeded(Unseeded):
    def reset(self, seed: int) -> Observation:
        return Observation("?", np.full((2, 2, 3), seed % 256, np.uint8))


def test_a_foreign_environment_that_ignores_its_seed_is_found_out_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(registry.ADAPTERS, "odd", f"{__name__}:Unseeded")
    monkeypatch.setitem(registry.ADAPTERS, "even", f"{__name__}:Seeded")
    said: list[str] = []

    check_environment(TrainConfig.parse({"env": {"name": "odd:x", "eval_kwargs": {}}}), said.append)
    assert "environment plain ignores its seed: two resets with seed 0 began differently" in said[0]

    said.clear()
    check_environment(TrainConfig.parse({"env": {"name": "even:x", "eval_kwargs": {}}}), said.append)
    assert not any("seed 0" in line or "seeds 0" in line for line in said)


def test_an_environment_in_a_process_is_checked_there() -> None:
    faulty = {"name": "tests.unit.envs.bridges.faulty:Leaving", "isolation": "process"}
    with pytest.raises(EnvironmentUnusable, match=r"for training .* EnvLost: .*its process ended with exit code 4"):
        check_environment(TrainConfig.parse({"env": faulty}), print)


@pytest.mark.parametrize(
    "command",
    [
        ["train", "--config", TINY],
        ["eval", "--config", TINY, "--model", "."],
        ["doctor", "--config", TINY, "--model", "."],
        ["play", "--config", TINY, "--model", "."],
        ["warmstart", "--config", TINY, "--output", "never"],
    ],
    ids=lambda command: command[0],
)
def test_commands_try_the_evaluation_before_anything_starts(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    code = app.run([*command, "--set", f"env.name={__name__}:Easy", "--set", "env.kwargs={}"])

    assert code == 1
    assert "cannot be started for evaluation" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_weight_for_no_part_of_the_reward_is_refused_before_anything_starts() -> None:
    wordle = {"env": {"name": "wordle", "kwargs": {"words": "tiny"}}, "reward": {"weights": {"spede": 1.0}}}
    with pytest.raises(UserError, match=r"'spede'; its parts: solved, partial, speed, format"):
        check_environment(TrainConfig.parse(wordle), print)


def test_past_versions_without_a_side_to_play_are_refused_before_anything_starts() -> None:
    def config(*overrides: str) -> TrainConfig:
        return TrainConfig.load(TINY, ["self_play.past_share=0.5", *overrides])

    with pytest.raises(EnvironmentUnusable, match=r"past_share is 0\.5, and in .* tictactoe .* no policy plays"):
        check_environment(config(), lambda said: None)
    check_environment(config("env.kwargs.opponent=policy"), lambda said: None)


def test_every_stage_of_a_curriculum_is_tried_before_anything_starts() -> None:
    def staged(**stage: Any) -> TrainConfig:
        stages = [{"name": "first"}, {"name": "second", **stage}]
        return TrainConfig.parse({"env": {"name": "key_door"}, "curriculum": {"stages": stages}})

    check_environment(staged(kwargs={"size": 3}), lambda said: None)
    with pytest.raises(EnvironmentUnusable, match=r"stage second of the curriculum: .*'sise'"):
        check_environment(staged(kwargs={"sise": 3}), lambda said: None)
    with pytest.raises(EnvironmentUnusable, match=r"stage second .* shows pictures, and key_door does not"):
        check_environment(staged(env="key_door_pixels"), lambda said: None)


def test_an_environment_that_hangs_is_given_up_and_named() -> None:
    config = TrainConfig.parse({"env": {"name": f"{__name__}:Hanging", "step_timeout_s": 0.02}})
    try:
        with pytest.raises(
            EnvironmentUnusable, match=r"Hanging has not started for training within 0\.08 s .*it hangs"
        ):
            check_environment(config, lambda said: None)
    finally:
        Hanging.released.set()


def staged(run_env: dict[str, Any], **stage: Any) -> TrainConfig:
    stages = [{"name": "first"}, {"name": "second", **stage}]
    return TrainConfig.parse({"env": run_env, "curriculum": {"stages": stages}})


def test_a_stage_of_another_game_under_the_system_prompt_of_this_one_is_refused() -> None:
    prompt = "You walk through a maze."
    with pytest.raises(EnvironmentUnusable, match=r"stage second .* and env.system_prompt was written"):
        check_environment(staged({"name": "key_door", "system_prompt": prompt}, env="tictactoe"), lambda said: None)
    check_environment(staged({"name": "key_door", "system_prompt": ""}, env="tictactoe"), lambda said: None)


def test_a_stage_that_trains_on_what_is_held_out_is_named() -> None:
    said: list[str] = []
    env = {"name": "key_door", "kwargs": {"split": "train"}}
    check_environment(staged(env, kwargs={"size": 3}), said.append)
    assert said == []
    check_environment(staged(env, kwargs={"split": "heldout"}), said.append)
    assert len(said) == 1
    assert "stage second of the curriculum trains on situations of the evaluation" in said[0]
