"""Episodes end one way each, failures are played again, and histories become training sequences."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from configs.training import EnvConfig, RolloutConfig
from deployments.errors import PolicyError
from deployments.protocol.generate import GenerateRequest, GenerateResult, Sampling
from envs import registry
from envs.base import Env
from training.rollouts.episode import Player, PlaySettings, request_seed, run_episode
from training.rollouts.group import EnvironmentFailed, PolicyUnreachable, RolloutFailed, run_group
from training.rollouts.renderer import ChatRenderer
from training.rollouts.samples import episode_samples
from training.types import Group, Task

TASK = Task("tictactoe", 5, 0)


@pytest.fixture(scope="module")
def renderer(policy_folder: Path) -> ChatRenderer:
    return ChatRenderer.load(str(policy_folder))


def policy(renderer: ChatRenderer, fail: Callable[[int], Exception | None] = lambda call: None) -> Any:
    """Plays random cells; `fail(n)` may raise on the n-th call."""
    rng, calls = random.Random(0), iter(range(10**6))

    async def generate(request: GenerateRequest) -> GenerateResult:
        error = fail(next(calls))
        if error is not None:
            raise error
        text = f"<move>{rng.randrange(1, 10)}</move>"
        ids = [*renderer.tokenizer.encode(text, add_special_tokens=False), renderer.end_id]
        return GenerateResult(request.request_id, ids, [-1.0] * len(ids), request.min_weight_version, "stop")

    return generate


def player(
    renderer: ChatRenderer,
    generate: Callable[[GenerateRequest], Awaitable[GenerateResult]] | None = None,
    make: Callable[[], Env] = lambda: registry.make("tictactoe"),
    history: str = "none",
    max_model_len: int = 512,
) -> Player:
    settings = PlaySettings(
        env=EnvConfig(name="tictactoe", system_prompt="", history=history),  # type: ignore[arg-type]
        rollout=RolloutConfig(max_retries=3, retry_backoff_s=0.0),
        sampling=Sampling(max_tokens=6),
        max_model_len=max_model_len,
        seeded=True,
    )
    return Player(make, generate or policy(renderer), renderer, settings)


async def test_a_group_is_complete_and_shares_its_task(renderer: ChatRenderer) -> None:
    group = await run_group(player(renderer), TASK, 8)
    assert isinstance(group, Group)
    assert [episode.sibling for episode in group.episodes] == list(range(8))
    assert len({episode.turns[0].prompt_ids for episode in group.episodes}) == 1


async def test_an_outage_is_played_again_and_never_becomes_a_reward(renderer: ChatRenderer) -> None:
    outage = policy(renderer, lambda call: PolicyError("unavailable", "gone") if call in (1, 2) else None)
    watched = player(renderer, outage)
    group = await run_group(watched, TASK, 4)
    assert len(group.episodes) == 4
    assert watched.hooks.counts["retries_infra_failed"] == 2
    failed = await run_episode(
        player(renderer, policy(renderer, lambda call: PolicyError("unavailable", "x"))), TASK, 0
    )
    assert failed.end == "infra_failed"
    with pytest.raises(ValueError, match="never a zero reward"):
        _ = failed.episode_return


async def test_an_outage_that_stays_ends_with_its_reason(renderer: ChatRenderer) -> None:
    dead = policy(renderer, lambda call: PolicyError("unavailable", "no replica"))
    with pytest.raises(PolicyUnreachable, match=r"4 tries: unavailable: no replica"):
        await run_group(player(renderer, dead), TASK, 1)


async def test_a_request_that_can_never_succeed_is_not_tried_again(renderer: ChatRenderer) -> None:
    refused = player(renderer, policy(renderer, lambda call: PolicyError("invalid_request", "bad token")))
    with pytest.raises(RolloutFailed, match="bad token"):
        await run_group(refused, TASK, 1)
    assert refused.hooks.counts["episodes_infra_failed"] == 1


async def test_an_environment_that_raises_is_named_with_its_seed(renderer: ChatRenderer) -> None:
    class Broken(type(registry.make("tictactoe"))):  # type: ignore[misc]
        def step(self, action: str) -> Any:
            raise OSError("simulator lost")

    with pytest.raises(EnvironmentFailed, match=r"tictactoe seed 5.*simulator lost"):
        await run_group(player(renderer, make=Broken), TASK, 2)


async def test_what_nobody_foresaw_ends_the_group_with_its_own_message(renderer: ChatRenderer) -> None:
    with pytest.raises(RolloutFailed, match=r"tictactoe seed 5: HistoryUnsupported: tictactoe has no scratchpad"):
        await run_group(player(renderer, history="scratchpad"), TASK, 2)


async def test_a_full_history_only_grows_and_is_one_training_sequence(renderer: ChatRenderer) -> None:
    episode = await run_episode(player(renderer, history="full"), TASK, 0)
    for before, after in zip(episode.turns, episode.turns[1:], strict=False):
        sent = before.prompt_ids + before.completion_ids
        assert after.prompt_ids[: len(sent)] == sent
    (sample,) = episode_samples(episode, 0.5, 0)
    assert sample.chosen == sum(len(turn.completion_ids) for turn in episode.turns)
    assert len(episode_samples(await run_episode(player(renderer), TASK, 0), 0.5, 0)) > 1


async def test_a_full_context_truncates_the_episode(renderer: ChatRenderer) -> None:
    short = player(renderer, history="full", max_model_len=64)
    episode = await run_episode(short, TASK, 0)
    assert episode.end == "truncated"
    assert short.hooks.counts["truncated_context_full"] == 1


def test_a_requests_seed_depends_on_its_place_alone(renderer: ChatRenderer) -> None:
    settings = player(renderer).settings
    assert request_seed(settings, TASK, 0, 0) == request_seed(settings, TASK, 0, 0)
    assert len({request_seed(settings, TASK, sibling, turn) for sibling in range(8) for turn in range(9)}) == 72


def test_an_answer_that_was_cut_gets_its_end_token_outside_of_what_was_chosen(renderer: ChatRenderer) -> None:
    message = [{"role": "user", "content": "next"}]
    whole, cut = renderer.continuation([7, renderer.end_id], message), renderer.continuation([7], message)
    assert cut == (renderer.end_id, *whole)
