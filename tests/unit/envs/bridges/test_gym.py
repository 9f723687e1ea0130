"""`gym:NAME` plays a Gymnasium environment by our contract. None of these tests needs pygame."""

from __future__ import annotations

import pickle
import random
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from envs import registry
from envs.base import Env, EnvUsageError, EpisodeOver, SettingError, StepResult
from envs.bridges import gymnasium_view
from envs.bridges.gym import MOST_STEPS, GymEnv
from envs.registry import UnknownEnvironment

ROOT = Path(__file__).resolve().parents[4]
NAMES = ("gym:CartPole-v1", "gym:FrozenLake-v1", "gym:Blackjack-v1", "gym:MountainCarContinuous-v0")


class Corridor(gymnasium.Env[Any, Any]):
    """Five cells; reward `pay` a step; the last cell ends it. Draws itself without a library, always
    into the same picture. Shares one action space
    among all its objects, whose `sample` is therefore not reproducible. Holds a lock, which cannot be pickled."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012
    observation_space = gymnasium.spaces.Discrete(5)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, pay: float = -1.0, both: bool = False, render_mode: str | None = None) -> None:
        self.render_mode, self._pay, self._both = render_mode, pay, both
        self._lock, self.closed = threading.Lock(), False
        self._canvas = np.zeros((2, 3, 3), np.uint8)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        super().reset(seed=seed)
        self._cell = 0
        return 0, {}

    def step(self, action: int) -> tuple[int, np.float64, bool, bool, dict[str, Any]]:
        self._cell = min(4, self._cell + int(action))
        over = self._cell == 4
        return self._cell, np.float64(self._pay), over, over and self._both, {}

    def render(self) -> Any:
        self._canvas[:] = self._cell
        return self._canvas if self.render_mode else None

    def close(self) -> None:
        self.closed = True


gymnasium.register("Corridor-v0", entry_point=Corridor, max_episode_steps=12)
FORTH, STAY = "<action>1</action>", "<action>0</action>"


def corridor(**settings: Any) -> Env:
    return registry.make("gym:Corridor-v0", **settings)


def played(env: Env, answers: list[str], seed: int = 0) -> list[StepResult]:
    """Until the end of the episode, or of the answers."""
    env.reset(seed)
    results: list[StepResult] = []
    for answer in answers:
        results.append(env.step(answer))
        if results[-1].terminated or results[-1].truncated:
            break
    return results


def transcript(env: Env, seed: int) -> list[Any]:
    """An episode of 30 answers, some of them malformed."""
    rng = random.Random(seed)
    first = env.reset(seed).text
    answers = [rng.choice([env.expert_action(rng), "what?"]) for _ in range(30)]
    return [first, *((r.observation.text, r.reward, r.info) for r in played(env, answers, seed))]


@pytest.mark.parametrize("name", NAMES)
def test_a_seed_and_answers_give_one_episode_also_among_others(name: str) -> None:
    alone = [transcript(registry.make(name), seed) for seed in range(10)]
    together = [registry.make(name) for _ in range(10)]
    firsts = [env.reset(seed).text for seed, env in enumerate(together)]

    assert firsts == [episode[0] for episode in alone]
    assert [transcript(env, seed) for seed, env in enumerate(together)] == alone
    assert len({str(episode) for episode in alone}) > 5


def test_what_a_malformed_answer_plays_does_not_depend_on_a_shared_space() -> None:
    def cells(env: Env) -> list[str]:
        return [result.observation.text for result in played(env, ["?"] * 10, seed=3)]

    first = cells(corridor())
    corridor().reset(9)

    assert cells(corridor()) == first
    assert len(set(first)) > 2


@pytest.mark.parametrize("seed", [-1, 2**31, 2**70])
def test_any_integer_is_a_seed(seed: int) -> None:
    assert registry.make("gym:CartPole-v1").reset(seed) == registry.make("gym:CartPole-v1").reset(seed)


def test_a_seed_gives_the_episode_that_gymnasium_gives_it() -> None:
    theirs = gymnasium.make("CartPole-v1")
    expected, _ = theirs.reset(seed=7)

    shown = registry.make("gym:CartPole-v1", digits=6).reset(7).text

    assert [float(part.split()[1]) for part in shown.split(", ")] == pytest.approx(expected, abs=1e-6)


def test_names_and_actions_reach_prompt_grammar_and_observation() -> None:
    names = ["position", "velocity", "angle", "angular_velocity"]
    env = registry.make("gym:CartPole-v1", names=names, actions=["left", "right"])

    shown = env.reset(0).text

    assert re.fullmatch(", ".join(rf"{name} -?0\.\d+" for name in names), shown)
    assert env.spec.system_prompt == "You play CartPole-v1. Answer <action>A</action> with left or right."
    assert env.spec.action_regex == "<action>(left|right)</action>"
    assert env.step("I push <action> LEFT").info == {"parse_ok": True, "illegal": False}


@pytest.mark.parametrize("name", NAMES)
def test_the_grammar_accepts_every_answer_of_the_expert(name: str) -> None:
    env, rng = registry.make(name), random.Random(0)
    env.reset(0)

    for _ in range(50):
        assert re.fullmatch(env.spec.action_regex, env.expert_action(rng, 0.3))


def test_a_number_out_of_bounds_is_illegal_and_played_as_the_bound() -> None:
    env = registry.make("gym:MountainCarContinuous-v0", digits=6)
    beyond, at_the_bound = (played(env, [f"<action>[{number}]</action>"])[0] for number in ("7", "1"))

    assert beyond.info == {"parse_ok": True, "illegal": True}
    assert at_the_bound.info == {"parse_ok": True, "illegal": False}
    assert beyond.observation == at_the_bound.observation


def test_a_malformed_answer_plays_a_drawn_action_and_costs_the_penalty() -> None:
    (result,) = played(corridor(malformed_penalty=0.25), ["I do not know"])

    assert result.info == {"parse_ok": False, "illegal": True}
    assert result.reward == -1.25
    assert not result.terminated


def test_a_malformed_answer_can_end_the_episode_which_is_then_no_success() -> None:
    env = corridor(malformed="end", malformed_penalty=0.5, pay=1.0)
    *_, result = played(env, [FORTH, FORTH, "?"])

    assert (result.reward, result.terminated, result.truncated, result.success) == (-0.5, True, False, False)
    assert result.observation.text == "o0 2"
    with pytest.raises(EpisodeOver):
        env.step(FORTH)


def test_success_is_a_return_above_zero_where_gymnasium_names_no_threshold() -> None:
    assert [result.success for result in played(corridor(pay=1.0), [FORTH] * 4)] == [False, False, False, True]
    assert not played(corridor(pay=0.0), [FORTH] * 4)[-1].success
    assert played(corridor(success_return=-4), [FORTH] * 4)[-1].success
    assert not played(corridor(success_return=-4), [STAY, *[FORTH] * 4])[-1].success


def test_a_penalty_does_not_count_against_success() -> None:
    """Five steps at -1, or four if the drawn action went forth; the reward of the first is -101."""
    last = played(corridor(success_return=-8, malformed_penalty=100.0), ["?", *[FORTH] * 4])[-1]

    assert last.terminated
    assert last.success


def test_threshold_and_horizon_are_those_of_gymnasium_unless_set() -> None:
    cart_pole = registry.spec("gym:CartPole-v1")
    assert (cart_pole.best_return, cart_pole.horizon, cart_pole.failure_return) == (475.0, 500, None)
    changed = registry.spec("gym:CartPole-v1", success_return=40, max_steps=50)
    assert (changed.best_return, changed.horizon) == (40, 50)
    assert registry.spec("gym:CartPole-v1", success_return=40, best_return=50, max_steps=50).best_return == 50
    assert registry.spec("gym:Blackjack-v1").horizon == MOST_STEPS


def test_the_limit_of_steps_truncates() -> None:
    results = played(corridor(max_steps=3), [STAY] * 9)
    assert [(r.terminated, r.truncated) for r in results] == [(False, False), (False, False), (False, True)]
    endless = registry.make("gym:CliffWalking-v1")  # Gymnasium names no limit
    results = played(endless, ["<action>0</action>"] * 2 * MOST_STEPS)
    assert len(results) == MOST_STEPS
    assert results[-1].truncated


def test_an_end_of_both_kinds_counts_as_the_games_own() -> None:
    last = played(corridor(both=True), [FORTH] * 4)[-1]

    assert (last.terminated, last.truncated) == (True, False)


def test_a_step_before_reset_raises() -> None:
    with pytest.raises(EpisodeOver):
        registry.make("gym:CartPole-v1").step(FORTH)


def test_the_rendered_frame_is_the_observation_where_an_image_is_wanted() -> None:
    env = corridor(observation="image")
    first, result = env.reset(0), env.step(FORTH)

    assert env.spec.image
    assert first.image is not None
    assert first.image.shape == (2, 3, 3)
    assert result.observation.image is not None
    assert (first.image.max(), result.observation.image.max()) == (0, 1)
    assert "o0" not in first.text


def test_render_gives_the_frame_only_where_a_render_mode_is_set() -> None:
    seen = corridor(render_mode="rgb_array")
    assert seen.render() is None
    seen.reset(0)
    assert seen.render() is not None
    blind = corridor()
    blind.reset(0)
    assert blind.render() is None


def test_an_environment_that_cannot_draw_without_a_library_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pygame", None)

    with pytest.raises(EnvUsageError, match="CartPole-v1 cannot draw its image: pygame is not installed"):
        registry.make("gym:CartPole-v1", observation="image").reset(0)
    env = registry.make("gym:CartPole-v1", render_mode="rgb_array")
    env.reset(0)
    assert env.render() is None


@pytest.mark.parametrize("name", NAMES)
def test_an_episode_goes_on_after_pickling(name: str) -> None:
    env = registry.make(name)
    env.reset(3)
    copy = pickle.loads(pickle.dumps(env))
    answer = env.expert_action(random.Random(0))

    assert copy.step(answer) == env.step(answer)


def test_an_environment_that_cannot_be_pickled_can_before_it_is_reset() -> None:
    copy = pickle.loads(pickle.dumps(corridor(pay=2.0)))

    assert played(copy, [FORTH])[0].reward == 2.0


def test_a_named_expert_plays_on_raw_observations_and_its_noise_is_drawn() -> None:
    env = corridor(expert=f"{__name__}:forth")
    env.reset(0)
    rng = random.Random(0)

    assert {env.expert_action(rng) for _ in range(20)} == {FORTH}
    assert {env.expert_action(rng, 1.0) for _ in range(20)} == {FORTH, STAY}


def forth(observation: Any) -> int:
    assert isinstance(observation, int)
    return 1


def test_close_closes_gymnasiums_environment() -> None:
    env = corridor()
    env.close()

    assert env._env.unwrapped.closed  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "settings", "error", "message"),
    [
        ("gym:CartPol-v1", {}, UnknownEnvironment, "Did you mean: `CartPole`"),
        ("gym:no_such_module:X-v0", {}, UnknownEnvironment, "No module named 'no_such_module'"),
        ("gym:", {}, EnvUsageError, "Malformed environment ID"),
        ("gym:CartPole-v1", {"digit": 3}, SettingError, "unexpected keyword argument 'digit'.*Did you mean 'digits'"),
        ("gym:CartPole-v1", {"speed": 3}, SettingError, "'speed'.*The adapter's own settings: observation, digits"),
        ("gym:CartPole-v1", {"identifier": 3}, SettingError, "unexpected keyword argument 'identifier'"),
        ("gym:FrozenLake-v1", {"map_name": "9x9"}, SettingError, "cannot be made with .*'map_name': '9x9'.*KeyError"),
        ("gym:CartPole-v1", {"malformed": "noop"}, SettingError, "malformed must be one of random, end"),
        ("gym:CartPole-v1", {"malformed_penalty": -1}, SettingError, "malformed_penalty must be 0 or more"),
        ("gym:CartPole-v1", {"digits": 0}, SettingError, "digits must lie in 1..15"),
        ("gym:CartPole-v1", {"max_steps": 0}, SettingError, "max_steps must be at least 1"),
        ("gym:CartPole-v1", {"observation": "image", "names": ["x"]}, SettingError, "names labels the numbers"),
        ("gym:CartPole-v1", {"expert": "envs.base:Nobody"}, SettingError, "expert must be package.module:function"),
    ],
)  # fmt: skip
def test_a_mistake_in_name_or_settings_says_what_is_wrong(
    name: str, settings: dict[str, Any], error: type[EnvUsageError], message: str
) -> None:
    with pytest.raises(error, match=f"(?s){message}"):
        registry.make(name, **settings)


def test_without_gymnasium_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gymnasium", None)

    with pytest.raises(EnvUsageError, match=r"gym:CartPole-v1 needs gymnasium.*pip install rayward\[train\]"):
        registry.make("gym:CartPole-v1")


def test_a_class_of_ones_own_may_narrow_the_adapter() -> None:
    class Slow(GymEnv):
        blocking = True

        def __init__(self, **settings: Any) -> None:
            super().__init__("CartPole-v1", **settings)

    assert Slow(max_steps=7).spec.horizon == 7


def test_gymnasiums_environment_seen_as_ours_seen_as_gymnasiums_passes_its_check() -> None:
    check_env(gymnasium_view.make("gym:FrozenLake-v1"), skip_render_check=True)


def test_naming_the_adapter_leaves_gymnasium_unloaded_until_an_environment_is_made() -> None:
    program = (
        "import sys; from envs import registry; registry.load('gym:CartPole-v1'); print('gymnasium' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "False", done.stderr
