"""The contract that every registered environment keeps."""

from __future__ import annotations

import pickle
import random
import re
from dataclasses import replace

import pytest

from envs.base import Env, EpisodeOver, Observation
from tests.unit.envs.registered import NAMES, episodes, made


def actions(name: str, seed: int) -> list[str]:
    rng = random.Random(seed)
    words = {
        "tictactoe": [f"<move>{n}</move>" for n in range(1, 10)] + ["nonsense"],
        "arm": [f"<action>[0.02, {y}, -0.03, 0, 0, 0.1, {g}]</action>" for y in (-0.02, 0.02) for g in (0, 1)] + ["?"],
        "cave": ['{"forward": 1}', '{"left": 1, "camera": [5, 40]}', "nonsense"],
    }
    return [rng.choice(words.get(name, ["<action>up</action>", "<action>right</action>", "?"])) for _ in range(60)]


def shown(observation: Observation) -> tuple[str, bytes]:
    """Text and picture, in a form that can be compared."""
    return observation.text, b"" if observation.image is None else observation.image.tobytes()


def transcript(env: Env, seed: int, name: str) -> list[tuple[tuple[str, bytes], float]]:
    seen = [(shown(env.reset(seed)), 0.0)]
    for action in actions(name, seed)[: 2 if env.spec.image else None]:  # a thousand episodes of pictures take long
        result = env.step(action)
        assert "parse_ok" in result.info
        assert not (result.terminated and result.truncated)
        seen.append((shown(result.observation), result.reward))
        if result.terminated or result.truncated:
            break
    return seen


@pytest.mark.parametrize("name", NAMES)
def test_a_thousand_at_once_play_as_they_do_alone(name: str) -> None:
    count = episodes(name, 1000)
    alone = [transcript(made(name), seed, name) for seed in range(count)]
    together = [made(name) for _ in range(count)]
    first = [shown(env.reset(seed)) for seed, env in enumerate(together)]
    assert first == [episode[0][0] for episode in alone]
    second = [shown(env.step(actions(name, seed)[0]).observation) for seed, env in enumerate(together)]
    assert second == [episode[1][0] for episode in alone]


@pytest.mark.parametrize("name", NAMES)
def test_an_episode_goes_on_after_pickling(name: str) -> None:
    env = made(name)
    env.reset(3)
    *before, last = actions(name, 3)[: min(2, env.spec.horizon)]
    for action in before:
        env.step(action)
    copy = pickle.loads(pickle.dumps(env))
    ours, theirs = env.step(last), copy.step(last)
    assert shown(theirs.observation) == shown(ours.observation)
    assert replace(theirs, observation=ours.observation) == ours


@pytest.mark.parametrize("name", NAMES)
def test_a_step_before_reset_or_after_the_end_raises(name: str) -> None:
    env = made(name)
    with pytest.raises(EpisodeOver):
        env.step("x")
    env.reset(0)
    for _ in range(env.spec.horizon):
        result = env.step("nonsense")
        if result.terminated or result.truncated:
            break
    with pytest.raises(EpisodeOver):
        env.step("x")


@pytest.mark.parametrize("name", NAMES)
def test_the_grammar_accepts_every_answer_of_the_expert(name: str) -> None:
    env, rng = made(name), random.Random(0)
    for seed in range(episodes(name, 20)):
        env.reset(seed)
        while True:
            action = env.expert_action(rng, 0.3)
            assert re.fullmatch(env.spec.action_regex, action)
            result = env.step(action)
            if result.terminated or result.truncated:
                break


@pytest.mark.parametrize("name", NAMES)
def test_a_reward_that_names_its_parts_is_their_declared_sum(name: str) -> None:
    """Else a run with weights of its own would pay for something else, or more for a cut episode than a lost one."""
    for seed in range(episodes(name, 30)):
        env, rng, total = made(name), random.Random(seed), dict[str, float]()
        env.reset(seed)
        declared = env.spec.reward_parts
        for _ in range(env.spec.horizon):
            result = env.step(env.expert_action(rng, noise=0.4, illegal_noise=0.2))
            parts = result.info.get("rewards", {})
            assert set(parts) <= set(declared)
            if parts:
                assert result.reward == pytest.approx(sum(declared[n].weight * value for n, value in parts.items()))
            total = {part: total.get(part, 0.0) + parts.get(part, 0.0) for part in declared}
            if result.terminated or result.truncated:
                break
        if not result.success:
            for part, value in total.items():
                assert declared[part].lost_low <= value <= declared[part].lost_high, part
