"""All siblings of a task, each played until it ends well; and what ends a run instead."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

from training.checks.alarms import Alarm
from training.checks.episodes import books_alarm, ends_alarm
from training.checks.failures import EnvironmentFailed, FaultyRollout, PolicyUnreachable, RolloutFailed
from training.checks.siblings import starts_alarm
from training.rollouts.episode import run_episode
from training.rollouts.player import Player
from training.types import Episode, Group, Task

logger = logging.getLogger("rayward")


async def run_group(player: Player, task: Task, group_size: int) -> Group:
    """All siblings of a task, each played until it ends well. Raises RolloutFailed when one cannot be.

    Waits for: the policy's answers. Unblocked by: their deadlines. Infrastructure failures are tried again
    `max_retries` times with a growing pause; an environment that fails twice with the same seed fails the group.
    """
    try:
        async with asyncio.TaskGroup() as siblings:
            tasks = [siblings.create_task(_complete(player, task, sibling)) for sibling in range(group_size)]
    except ExceptionGroup as failures:
        first = next((e for e in failures.exceptions if isinstance(e, RolloutFailed)), failures.exceptions[0])
        if isinstance(first, RolloutFailed):
            raise first from None
        raise RolloutFailed(f"{task.env} seed {task.seed}: {type(first).__name__}: {first}") from first
    group = Group(task, tuple(done.result() for done in tasks))
    for alarm in _alarms(player, group):
        player.hooks.count(f"alarms_{alarm.check}")
        if player.settings.on_alarm == "end":
            raise FaultyRollout(alarm)
        logger.warning("%s", alarm)
    return group


def _alarms(player: Player, group: Group) -> Iterator[Alarm]:
    env, books = player.settings.env, player.hooks.books
    first_prompts = [episode.turns[0].added_ids for episode in group.episodes]
    found = [starts_alarm(first_prompts, group.task.seed)]
    for episode in group.episodes:
        noted = books[group.task, episode.sibling, episode.retries]
        as_played = env.cut_short == "as_played"
        found.append(books_alarm(episode, noted.books, noted.failure_return, as_played, noted.weights))
        found.append(ends_alarm(episode, player.renderer.ends))
    for key in [key for key in books if key[0] == group.task]:
        del books[key]
    yield from (alarm for alarm in found if alarm is not None)


async def _complete(player: Player, task: Task, sibling: int) -> Episode:
    async with player.room:
        return await _played_until_it_ends_well(player, task, sibling)


async def _played_until_it_ends_well(player: Player, task: Task, sibling: int) -> Episode:
    limits = player.settings.rollout
    env_failures = 0
    for attempt in range(limits.max_retries + 1):
        episode = await run_episode(player, task, sibling, attempt)
        if episode.ok:
            return episode
        player.hooks.count(f"retries_{episode.end}")
        where = f"{task.env} seed {task.seed}, sibling {sibling}"
        if episode.end == "env_failed":
            env_failures += 1
            if env_failures == 2:
                raise EnvironmentFailed(f"{where}: the environment failed twice: {episode.error}")
        elif not episode.retryable:
            raise RolloutFailed(f"{where}: {episode.error}")
        else:
            await asyncio.sleep(min(limits.retry_backoff_s * 2**attempt, 10.0))
    raise PolicyUnreachable(f"{where}: no answer from the policy in {limits.max_retries + 1} tries: {episode.error}")
