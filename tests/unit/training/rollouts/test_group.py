"""A group is completed by playing its failed siblings again, or fails with a name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from deployments.errors import PolicyError
from deployments.protocol.generate import GenerateRequest, GenerateResult
from envs.base import Observation
from envs.games.tictactoe import TicTacToe
from tests.unit.training.rollouts.players import TASK, player, policy
from training.checks.failures import EnvironmentFailed, FaultyRollout, PolicyUnreachable, RolloutFailed
from training.rendering.renderer import ChatRenderer
from training.rollouts.group import run_group
from training.types import Group


async def test_a_group_is_complete_and_shares_its_task(renderer: ChatRenderer) -> None:
    group = await run_group(player(renderer), TASK, 8)
    assert isinstance(group, Group)
    assert [episode.sibling for episode in group.episodes] == list(range(8))
    assert len({episode.turns[0].added_ids for episode in group.episodes}) == 1


async def test_an_outage_is_played_again(renderer: ChatRenderer) -> None:
    outage = policy(renderer, lambda call: PolicyError("unavailable", "gone") if call in (1, 2) else None)
    watched = player(renderer, outage)
    group = await run_group(watched, TASK, 4)
    assert len(group.episodes) == 4
    assert watched.hooks.counts["retries_infra_failed"] == 2


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
    class Broken(TicTacToe):
        def step(self, action: str) -> Any:
            raise OSError("simulator lost")

    with pytest.raises(EnvironmentFailed, match=r"tictactoe seed 5.*simulator lost"):
        await run_group(player(renderer, make=Broken), TASK, 2)


async def test_what_nobody_foresaw_ends_the_group_with_its_own_message(renderer: ChatRenderer) -> None:
    with pytest.raises(RolloutFailed, match=r"tictactoe seed 5: HistoryUnsupported: tictactoe has no scratchpad"):
        await run_group(player(renderer, history="scratchpad"), TASK, 2)


async def test_a_seed_that_an_environment_ignores_ends_the_run(renderer: ChatRenderer) -> None:
    starts = iter(range(10))

    class Unseeded(TicTacToe):
        def reset(self, seed: int) -> Observation:
            return replace(super().reset(seed), text=f"game {next(starts)}")

    with pytest.raises(FaultyRollout, match="check «sibling starts»"):
        await run_group(player(renderer, make=Unseeded), TASK, 3)


async def test_a_run_that_is_told_to_warn_counts_the_alarm(renderer: ChatRenderer) -> None:
    async def endless(request: GenerateRequest) -> GenerateResult:
        return GenerateResult(request.request_id, [5, 6], [-1.0, -1.0], 0, "stop")  # no end of a turn

    watched = player(renderer, endless, max_turns=2)
    with pytest.raises(FaultyRollout, match="check «end of turn»"):
        await run_group(watched, TASK, 2)
    warned = replace(watched, settings=replace(watched.settings, on_alarm="warn"))
    assert len((await run_group(warned, TASK, 2)).episodes) == 2
    assert warned.hooks.counts["alarms_end of turn"] > 0


async def test_the_books_of_a_group_are_closed_with_it(renderer: ChatRenderer) -> None:
    watched = player(renderer)
    await run_group(watched, TASK, 4)
    assert watched.hooks.books == {}
