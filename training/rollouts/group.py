"""All siblings of a task, each played until it ends well; and what ends a run instead."""

from __future__ import annotations

import asyncio

from configs.base import UserError
from training.rollouts.episode import Player, run_episode
from training.types import Episode, Group, Task


class RolloutFailed(UserError):
    """A group could not be completed; the message names the task, the reason and how often it was tried."""


class EnvironmentFailed(RolloutFailed):
    """The environment raised or hung again and again."""


class PolicyUnreachable(RolloutFailed):
    """No replica gave an answer, again and again."""


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
    return Group(task, tuple(done.result() for done in tasks))


async def _complete(player: Player, task: Task, sibling: int) -> Episode:
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
