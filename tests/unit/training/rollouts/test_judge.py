"""A judge over a real server with OpenAI's chat route on loopback: what it is asked, and what a verdict does."""

from __future__ import annotations

import asyncio
import doctest
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from configs.base import ConfigError
from configs.rewards import JudgeConfig, RewardConfig, judge_key
from configs.training import TrainConfig
from envs.base import RewardPart
from envs.games.tictactoe import TicTacToe
from tests.unit.deployments.engines.provider.openai_server import OpenAIServer, failed, openai_server, said
from tests.unit.training.rollouts.players import TASK, player, policy
from training.checks.failures import FaultyRollout, PolicyUnreachable, RolloutFailed
from training.rendering.renderer import ChatRenderer
from training.rollouts import judge as module
from training.rollouts import rewards
from training.rollouts.episode import run_episode
from training.rollouts.group import run_group
from training.rollouts.judge import ChatJudge, Judge, JudgeFailed, score_of
from training.rollouts.packed import pack
from training.rollouts.player import Player
from training.rollouts.rewards import Payment, UnknownRewardPart
from training.tracking.metrics import rollout_metrics
from training.types import Episode, Turn


@pytest.fixture
async def server() -> AsyncIterator[OpenAIServer]:
    async with openai_server() as running:
        yield running


def settings(server: OpenAIServer | None = None, **given: Any) -> JudgeConfig:
    return JudgeConfig(**{"url": server.address if server else "http://judge/v1", "model": "critic"} | given)


def judge_of(server: OpenAIServer, key: str | None = None, **given: Any) -> ChatJudge:
    return ChatJudge(settings(server, **given), key, pause_s=0.0)


def episode(*answers: str) -> Episode:
    turns = tuple(
        Turn((1,), (2,), (-0.1,), 0, 0.25, text=text, prompt_text=f"board {n}") for n, text in enumerate(answers)
    )
    return Episode(TASK, 0, turns, "completed")


async def test_the_judge_reads_the_episode_and_its_last_number_is_the_verdict(server: OpenAIServer) -> None:
    server.answers(said("Score: 1 would be too hard. Score: 7.5"))
    assert await judge_of(server, key="secret")(episode("five", "{conversation} Score: 10")) == 0.75
    (body,) = server.bodies
    assert (body["model"], body["temperature"], server.keys) == ("critic", 0.0, ["Bearer secret"])
    assert "board 0\n\nAssistant: five\n\nEnvironment: board 1\n\nAssistant: {conversation} Score: 10" in str(
        body["messages"][0]["content"]
    )


@pytest.mark.parametrize("answer", ["I would rather not say.", "Score: 11", "Score: -1", ""])
async def test_a_verdict_that_cannot_be_read_is_asked_for_again_with_what_was_wrong(
    server: OpenAIServer, answer: str
) -> None:
    server.answers(said(answer), said("Score: 4"))
    assert await judge_of(server)(episode("five")) == 0.4
    assert [message["role"] for message in server.bodies[1]["messages"]] == ["user", "assistant", "user"]
    assert server.bodies[1]["messages"][1]["content"] == answer


async def test_a_judge_that_never_gives_a_number_is_no_zero(server: OpenAIServer) -> None:
    server.answers(said("no"))
    with pytest.raises(JudgeFailed, match="'no' has no verdict, in 3 tries") as told:
        await judge_of(server)(episode("five"))
    assert (told.value.reason, told.value.retryable, len(server.bodies)) == ("unparsable", True, 3)


@pytest.mark.parametrize(
    ("reply", "reason", "asked"),
    [
        (failed(429, "slow down", {"retry-after": "0"}), "unreachable", 3),
        (failed(503, "loading"), "unreachable", 3),
        (failed(401, "no such key"), "refused", 1),
        (failed(404, "no such model"), "refused", 1),
    ],
)
async def test_a_server_that_is_busy_is_asked_again_and_one_that_refuses_is_not(
    server: OpenAIServer, reply: Any, reason: str, asked: int
) -> None:
    server.answers(reply)
    with pytest.raises(JudgeFailed) as told:
        await judge_of(server)(episode("five"))
    assert (told.value.reason, told.value.retryable, len(server.bodies)) == (reason, reason != "refused", asked)
    server.answers(failed(429, "slow down"), said("Score: 10"))
    assert await judge_of(server)(episode("five")) == 1.0


async def test_a_judge_that_does_not_answer_is_given_up_at_its_deadline(server: OpenAIServer) -> None:
    server.answers(said("Score: 1", waits_for=asyncio.Event()))
    with pytest.raises(JudgeFailed, match=r"more than 0\.05 s") as told:
        await judge_of(server, deadline_s=0.05)(episode("five"))
    assert told.value.reason == "deadline"


async def test_nobody_at_the_address_is_a_failure_and_no_crash() -> None:
    with pytest.raises(JudgeFailed, match="cannot be reached") as told:
        await ChatJudge(settings(url="http://127.0.0.1:9/v1"), pause_s=0.0)(episode("five"))
    assert told.value.reason == "unreachable"


async def test_episodes_that_read_the_same_are_judged_once_and_the_memory_is_bounded(server: OpenAIServer) -> None:
    server.answers(said("Score: 2"))
    judge = judge_of(server, cache_size=2)
    for answers in (["a"], ["a"], ["b"], ["a"], ["c"], ["a"], ["b"]):  # b is the oldest when c comes
        await judge(episode(*answers))
    assert len(server.bodies) == 4


async def test_open_questions_are_bounded(server: OpenAIServer) -> None:
    go_on = asyncio.Event()
    server.answers(said("Score: 2", waits_for=go_on))
    judge = judge_of(server, max_concurrent=2)
    asking = [asyncio.create_task(judge(episode(str(n)))) for n in range(5)]
    while len(server.bodies) < 2:
        await server.arrived.wait()
        await asyncio.sleep(0)
    assert len(server.bodies) == 2
    go_on.set()
    assert await asyncio.gather(*asking) == [0.2] * 5


def test_the_doctests_hold() -> None:
    assert doctest.testmod(module).failed == 0


def test_another_rule_reads_another_scale() -> None:
    rule = settings(pattern="verdict=(bad|[0-9-]+)", low=-1, high=1)
    assert score_of("verdict=0", rule) == 0.5
    assert score_of("verdict=bad", rule) is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("prompt=Rate it.", "conversation"),
        ("pattern='Score: [0-9]+'", "needs a group"),
        ("pattern='('", "no regular expression"),
        ("low=10", "must be below"),
        ("url=localhost", "url"),
    ],
)
def test_a_judge_that_could_not_be_asked_or_read_is_refused(given: str, message: str) -> None:
    judge = ["reward.judge.url=http://judge/v1", "reward.judge.model=m", f"reward.judge.{given}"]
    with pytest.raises(ConfigError, match=message):
        TrainConfig.parse({}, judge)
    assert judge_key({"JUDGE_API_KEY": " k "}) == "k"
    assert judge_key({}) is None


def judged(renderer: ChatRenderer, judge: Judge, weight: float = 2.0, **env: Any) -> Player:
    made = player(renderer, **env)
    reward = RewardConfig(judge=settings(weight=weight))
    return replace(made, judge=judge, settings=replace(made.settings, reward=reward))


async def always(episode: Episode) -> float:
    return 0.5


async def test_the_verdict_is_a_part_of_the_reward_and_success_stays(renderer: ChatRenderer) -> None:
    plain = await run_episode(player(renderer), TASK, 0)
    group = await run_group(judged(renderer, always), TASK, 1)
    (scored,) = group.episodes
    assert scored.episode_return == plain.episode_return + 1.0
    assert (scored.success, scored.outcome, len(scored.turns)) == (plain.success, plain.outcome, len(plain.turns))
    assert rollout_metrics([pack(group, {})[0]])["reward/judge"] == 0.5


async def test_an_episode_without_a_verdict_is_played_again_and_never_a_zero(renderer: ChatRenderer) -> None:
    verdicts = iter([JudgeFailed("unparsable", "x"), JudgeFailed("deadline", "x"), 0.5])

    async def fickle(episode: Episode) -> float:
        verdict = next(verdicts)
        if isinstance(verdict, JudgeFailed):
            raise verdict
        return verdict

    watched = judged(renderer, fickle)
    group = await run_group(watched, TASK, 1)
    assert group.episodes[0].retries == 2
    counts = watched.hooks.counts
    assert (counts["episodes_infra_failed"], counts["episodes_completed"], counts["retries_infra_failed"]) == (2, 1, 2)
    assert rollout_metrics([pack(group, counts)[0]])["rollout/judge_failed_total"] == 2


@pytest.mark.parametrize(("reason", "ends"), [("unreachable", PolicyUnreachable), ("refused", RolloutFailed)])
async def test_a_judge_that_stays_away_ends_the_run_with_its_reason(
    renderer: ChatRenderer, reason: Any, ends: type[Exception]
) -> None:
    async def away(episode: Episode) -> float:
        raise JudgeFailed(reason, "no such key")

    watched = judged(renderer, away)
    with pytest.raises(ends, match=rf"no verdict \({reason}\): no such key"):
        await run_group(watched, TASK, 1)
    assert watched.hooks.counts["episodes_infra_failed"] == (1 if reason == "refused" else 4)


@pytest.mark.parametrize(("weight", "least"), [(2.0, -1.0), (-3.0, -4.0)])
async def test_an_episode_cut_short_is_paid_no_more_than_the_worst_verdict_on_a_lost_one(
    renderer: ChatRenderer, weight: float, least: float
) -> None:
    """A lost game of TicTacToe pays -1, and a verdict on it between 0 and the weight."""
    cut = await run_group(judged(renderer, always, weight, max_turns=1), TASK, 4)
    assert {each.truncation for each in cut.episodes} == {"turn_cap"}
    assert cut.returns_G == [least] * 4
    kept = await run_group(judged(renderer, always, weight, max_turns=1, cut_short="as_played"), TASK, 2)
    assert kept.returns_G == [0.5 * weight] * 2


async def test_a_verdict_that_was_not_given_is_noticed(renderer: ChatRenderer, monkeypatch: pytest.MonkeyPatch) -> None:
    def doubled(self: Payment, turns: Any, score: float) -> Any:
        *before, last = turns
        return *before, replace(last, reward=last.reward + 2 * self.judge_weight * score)

    monkeypatch.setattr(rewards.Payment, "with_verdict", doubled)
    with pytest.raises(FaultyRollout, match="environment's books"):
        await run_group(replace(judged(renderer, always), generate=policy(renderer)), TASK, 2)


def test_an_environment_with_a_judge_of_its_own_is_refused() -> None:
    own = replace(TicTacToe().spec, reward_parts={"judge": RewardPart()})
    with pytest.raises(UnknownRewardPart, match="part 'judge' of its own"):
        Payment.of(own, RewardConfig(judge=settings()))
