"""A run's own weights of a reward's named parts: what they pay, what losing pays under them, and who notices."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.rewards import RewardConfig
from envs.base import EnvSpec, Observation, RewardPart, StepResult
from envs.games.tictactoe import TicTacToe
from envs.games.wordle import Wordle
from tests.unit.training.rollouts.players import TASK, player, policy
from training.checks.failures import FaultyRollout
from training.environments.calls import EnvCallFailed
from training.rendering.renderer import ChatRenderer
from training.rollouts import episode as episode_module
from training.rollouts.episode import run_episode
from training.rollouts.group import run_group
from training.rollouts.player import Player
from training.rollouts.rewards import Payment, UnknownRewardPart

WEIGHTS = st.floats(-10, 10)


def spec(failure_return: float | None = 0.0, **parts: RewardPart) -> EnvSpec:
    return EnvSpec("game", "", "", ".*", 4, 1.0, 1.0, failure_return=failure_return, reward_parts=parts)


def step(reward: float, parts: Mapping[str, float] | None) -> StepResult:
    info = {"parse_ok": True} if parts is None else {"parse_ok": True, "rewards": dict(parts)}
    return StepResult(Observation(""), reward, True, False, True, info)


SOLVED = spec(solved=RewardPart(), format=RewardPart(0.5, lost_high=0.2))


def test_without_weights_a_step_is_paid_as_the_environment_says() -> None:
    plain = step(0.3, {"anything": 1.0})
    assert Payment.of(SOLVED, RewardConfig()).weighed(plain) is plain


def test_the_named_parts_add_up_under_the_runs_weights_and_success_stays() -> None:
    weighed = Payment.of(SOLVED, RewardConfig(weights={"format": 2.0})).weighed(step(9.0, {"solved": 1, "format": 0.1}))
    assert weighed.reward == pytest.approx(1.2)  # 1 * 1 (the environment's own weight) + 2 * 0.1
    assert weighed.success
    assert weighed.info["rewards"] == {"solved": 1, "format": 0.1}


def test_a_step_that_names_no_parts_keeps_its_reward() -> None:
    assert Payment.of(SOLVED, RewardConfig(weights={"format": 2.0})).weighed(step(0.25, None)).reward == 0.25


def test_a_weight_for_no_part_is_refused_with_the_parts_there_are() -> None:
    with pytest.raises(UnknownRewardPart, match=r"no part 'fromat'; its parts: solved, format"):
        Payment.of(SOLVED, RewardConfig(weights={"fromat": 1.0}))
    with pytest.raises(UnknownRewardPart, match="game declares no parts"):
        Payment.of(spec(), RewardConfig(weights={"format": 1.0}))


@pytest.mark.parametrize(
    ("parts", "message"), [({"bonus": 1.0}, "bonus.*solved, format"), ({"format": 1e308}, "finite")]
)
def test_a_step_that_cannot_be_weighed_is_the_environments_failure(parts: dict[str, float], message: str) -> None:
    with pytest.raises(EnvCallFailed, match=message):
        Payment.of(SOLVED, RewardConfig(weights={"format": 10.0})).weighed(step(0.0, parts))


@pytest.mark.parametrize(
    ("weights", "least"),
    [
        ({"format": 3.0}, 0.0),  # a lost episode may have 0 of it
        ({"format": -2.0}, -0.4),  # or all of 0.2: -2 * 0.2
        ({"solved": -5.0}, 0.0),  # a lost one is not solved
    ],
)
def test_what_losing_pays_at_least_follows_the_weights(weights: dict[str, float], least: float) -> None:
    assert Payment.of(SOLVED, RewardConfig(weights=weights)).failure_return == pytest.approx(least)
    assert Payment.of(spec(None, **SOLVED.reward_parts), RewardConfig(weights=weights)).failure_return is None


def test_what_losing_pays_beside_the_named_parts_stays() -> None:
    """The game costs 1 when it is lost, in a step that names no parts."""
    fined = spec(-1.0, format=RewardPart(lost_high=0.2))
    assert Payment.of(fined, RewardConfig(weights={"format": -1.0})).failure_return == pytest.approx(-1.2)


@given(
    st.dictionaries(st.sampled_from(["solved", "partial", "speed", "format"]), WEIGHTS, min_size=1), st.integers(0, 9)
)
def test_no_lost_game_of_wordle_is_paid_less_than_a_cut_one(weights: dict[str, float], seed: int) -> None:
    env, rng = Wordle(words="tiny"), random.Random(seed)
    pay = Payment.of(env.spec, RewardConfig(weights=weights))
    env.reset(seed)
    paid = 0.0
    for _ in range(env.spec.horizon):
        result = pay.weighed(env.step(env.expert_action(rng, noise=1.0, illegal_noise=0.2)))
        paid += result.reward
        if result.terminated:
            break
    assert pay.failure_return is not None
    assert result.success or pay.failure_return <= paid + 1e-9


class Scored(TicTacToe):
    """Each turn is paid 1 for its form; half of it is the environment's own weight."""

    def __init__(self) -> None:
        super().__init__()
        self.spec = replace(self.spec, failure_return=0.0, reward_parts={"form": RewardPart(0.5, lost_high=9.0)})

    def step(self, action: str) -> StepResult:
        result = super().step(action)
        return replace(result, reward=0.5, info={**result.info, "rewards": {"form": 1.0}})


def weighing(renderer: ChatRenderer, weights: dict[str, float], **env: Any) -> Player:
    made = player(renderer, make=Scored, **env)
    return replace(made, settings=replace(made.settings, reward=RewardConfig(weights=weights)))


async def test_an_episode_is_paid_by_the_weights_and_succeeds_as_before(renderer: ChatRenderer) -> None:
    own = await run_episode(weighing(renderer, {}), TASK, 0)
    weighed = await run_episode(weighing(renderer, {"form": 3.0}), TASK, 0)
    assert own.episode_return == 0.5 * len(own.turns)
    assert weighed.episode_return == 3.0 * len(own.turns)
    assert (weighed.success, weighed.outcome, weighed.turns[0].reward_parts) == (
        own.success,
        own.outcome,
        {"form": 1.0},
    )


async def test_an_episode_cut_short_is_paid_no_more_than_the_least_of_a_lost_one(renderer: ChatRenderer) -> None:
    cut = await run_episode(weighing(renderer, {"form": -1.0}, max_turns=2), TASK, 0)
    assert cut.truncation == "turn_cap"
    assert cut.episode_return == pytest.approx(-9.0)  # nine turns of a lost game at most, -1 each
    assert len((await run_group(weighing(renderer, {"form": -1.0}, max_turns=2), TASK, 4)).episodes) == 4


async def test_the_books_know_the_weights_and_notice_a_sum_of_another_kind(
    renderer: ChatRenderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = weighing(renderer, {"form": 3.0})
    assert len((await run_group(watched, TASK, 4)).episodes) == 4
    monkeypatch.setattr(episode_module.Payment, "weighed", lambda self, result: result)  # the weights are forgotten
    with pytest.raises(FaultyRollout, match="environment's books"):
        await run_group(replace(watched, generate=policy(renderer)), TASK, 4)
