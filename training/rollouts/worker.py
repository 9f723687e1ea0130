"""The Ray actor that plays groups."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from typing import Any

import ray

from configs.rewards import judge_key
from configs.training import TrainConfig
from deployments.client.handle import ServeGenerate
from envs.registry import make as make_env
from training.environments.calls import Hooks
from training.environments.processes import EnvProcesses, isolation_of
from training.rendering.renderer import ChatRenderer
from training.rollouts.group import run_group
from training.rollouts.judge import ChatJudge
from training.rollouts.packed import GroupSamples, pack
from training.rollouts.player import Past, Player, PlaySettings
from training.types import Episode, GroupSummary, Task


def serve_generate(config: TrainConfig, app: str, policy: str = "") -> ServeGenerate:
    """The way to a policy of a running application (none named: the one that the run trains), as a run's settings want
    it."""
    from ray import serve

    rollout, replicas = config.rollout, config.serving.replicas
    return ServeGenerate(
        serve.get_deployment_handle(policy or config.serving.policy, app),
        buckets=1 if replicas.max_replicas == 1 else 8 * replicas.max_replicas,
        window_s=rollout.batch_window_s,
        max_batch=rollout.max_batch,
    )


def start_worker(config: TrainConfig, model_folder: str, app: str) -> Any:
    """A new RolloutWorker's handle."""
    options = RolloutWorker.options(  # type: ignore[attr-defined]
        num_cpus=config.rollout.worker_cpus, max_concurrency=4096
    )
    return options.remote(config.dump(), model_folder, app)


class GroupPlayer:
    """Plays the groups it is given, many episodes at once in one asyncio loop.

    Consumes: `play` calls. Waits for: policy answers, bounded by their deadlines; with processes for the environments,
    for a free one. Stops when: its owner kills it; those processes end with it.
    `stuck` runs in a thread of its own: it answers while an environment holds the loop.
    """

    def __init__(self, config: dict[str, Any], model_folder: str, app: str) -> None:
        self._config = TrainConfig.model_validate(config)
        self._renderer = ChatRenderer.load(model_folder)
        self._generate = serve_generate(self._config, app)
        past = self._config.serving.past_policy if self._config.self_play.past_share else None
        self._past = serve_generate(self._config, app, past) if past else None
        judge = self._config.reward.judge
        self._judge = None if judge is None else ChatJudge(judge, judge_key(os.environ))
        self._hooks = Hooks()
        env, most = self._config.env, self._config.rollout.max_concurrent_episodes
        self._isolation, self._processes = isolation_of(env), EnvProcesses.of(env)
        if self._processes is not None:
            most = min(most, env.processes)  # who waits for a process has not begun: the episode's deadline waits, too
        self._room = asyncio.Semaphore(most)

    @ray.method(num_returns=3)
    async def play(
        self,
        task: Task,
        group_size: int,
        min_weight_version: int,
        evaluation: bool,
        history: str,
        keep_episodes: bool,
        past_version: int | None = None,
    ) -> tuple[GroupSummary, GroupSamples, tuple[Episode, ...] | None]:
        """One complete group as (its summary, its samples, its episodes if asked for): three objects, of which the
        caller fetches what it needs. `history`: another strategy than the configured one. `past_version`: the
        other side of a game is played by a past version of the policy, by this version of the past store; None: by its
        newest weights. Raises RolloutFailed."""
        make = PlaySettings.for_evaluation if evaluation else PlaySettings.for_training
        settings = make(self._config, min_weight_version)
        if task.stage and self._config.curriculum is not None and not evaluation:
            settings = replace(settings, env=self._config.curriculum.env_of(settings.env, task.stage))
        if history:
            settings = replace(settings, env=settings.env.model_copy(update={"history": history}))
        player = Player(
            make_env=lambda: make_env(settings.env.name, **settings.env.kwargs),
            generate=self._generate,
            renderer=self._renderer,
            settings=settings,
            hooks=Hooks(env_call=self._hooks.env_call, total=self._hooks.counts),
            blocking=self._isolation != "none",
            processes=self._processes,
            judge=self._judge,
            room=self._room,
            past=None if past_version is None or self._past is None else Past(self._past, past_version),
        )
        group = await run_group(player, task, group_size)
        return *pack(group, player.hooks.counts), group.episodes if keep_episodes else None

    async def counts(self) -> dict[str, int]:
        """Counters by reason since the start: episodes_*, retries_*, truncated_*."""
        return dict(self._hooks.counts)

    @ray.method(concurrency_group="watch")
    def stuck(self) -> str | None:
        """Which environment call has run longer than `env.step_timeout_s`, if any."""
        limit_s = self._config.env.step_timeout_s
        for what, since in list(self._hooks.env_call.values()):
            running_s = self._hooks.clock() - since
            if running_s > limit_s:
                return f"{what} has not returned for {running_s:.1f} s (env.step_timeout_s is {limit_s:g})"
        return None


@ray.remote(concurrency_groups={"watch": 1})
class RolloutWorker(GroupPlayer):
    """A GroupPlayer in a process of its own."""
