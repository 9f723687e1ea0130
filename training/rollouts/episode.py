"""Playing episodes: plain asyncio, no ray. The single place where an episode may fail.

An episode ends as exactly one of completed | truncated | env_failed | infra_failed. A failure never becomes a reward:
`run_group` plays the sibling again, with a fresh environment and the same seed, until the group is complete.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from configs.training import EnvConfig, RolloutConfig, TrainConfig
from deployments.errors import PolicyError
from deployments.protocol.generate import Generate, GenerateRequest, Sampling
from envs.base import Env
from envs.history import make_history
from envs.registry import evaluation_settings
from training.rollouts.renderer import ChatRenderer
from training.types import EndReason, Episode, Task, Turn

CONTEXT_FULL = "context_full"  # `error` of an episode that ended because its chat outgrew the engine begins with it


@dataclass(frozen=True)
class PlaySettings:
    """How episodes are played; the same for all episodes of a step."""

    env: EnvConfig
    rollout: RolloutConfig
    sampling: Sampling
    max_model_len: int
    seed: int = 0
    seeded: bool = False  # every request carries a seed: bit-for-bit repeatable
    min_weight_version: int = 0
    evaluation: bool = False

    @classmethod
    def for_training(cls, config: TrainConfig, min_weight_version: int = 0) -> PlaySettings:
        sampling = Sampling(temperature=config.sampling.temperature, max_tokens=config.sampling.max_tokens)
        return cls(
            env=config.env,
            rollout=config.rollout,
            sampling=sampling,
            max_model_len=config.serving.engine.max_model_len,
            seed=config.seed,
            seeded=config.deterministic,
            min_weight_version=min_weight_version,
        )

    @classmethod
    def for_evaluation(cls, config: TrainConfig, min_weight_version: int = 0) -> PlaySettings:
        """Held-out situations, the evaluation's temperature, every request seeded: an evaluation repeats exactly."""
        settings = evaluation_settings(config.env.name, config.env.kwargs, config.env.eval_kwargs)
        env = config.env.model_copy(update={"kwargs": settings})
        training = cls.for_training(config, min_weight_version)
        sampling = replace(training.sampling, temperature=config.evaluation.temperature)
        return replace(training, env=env, sampling=sampling, seeded=True, evaluation=True)


@dataclass
class Hooks:
    """What an observer sees of the episodes: counters by reason, and which environment call runs since when."""

    counts: Counter[str] = field(default_factory=Counter)
    env_call: dict[int, tuple[str, float]] = field(default_factory=dict)  # key -> (what, since, monotonic s)
    clock: Callable[[], float] = time.monotonic


@dataclass(frozen=True)
class Player:
    """All that one episode needs; holds no state of its own."""

    make_env: Callable[[], Env]
    generate: Generate
    renderer: ChatRenderer
    settings: PlaySettings
    hooks: Hooks = field(default_factory=Hooks)


def request_seed(settings: PlaySettings, task: Task, sibling: int, turn: int) -> int | None:
    """A seed of one request that depends on where it stands, never on timing or retries."""
    if not settings.seeded:
        return None
    key = f"{settings.seed}/{settings.evaluation}/{task.env}/{task.seed}/{task.index}/{sibling}/{turn}"
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=4).digest(), "little")


async def run_episode(player: Player, task: Task, sibling: int, attempt: int = 0) -> Episode:
    """Plays one episode. Never raises (but for cancellation): what goes wrong is in the episode's `end` and `error`."""
    began = time.perf_counter()
    turns: list[Turn] = []

    def ended(end: EndReason, success: bool = False, outcome: str = "", error: str = "") -> Episode:
        player.hooks.counts[f"episodes_{end}"] += 1
        duration_s = time.perf_counter() - began
        return Episode(task, sibling, tuple(turns), end, success, outcome, error, attempt, duration_s)

    try:
        async with asyncio.timeout(player.settings.rollout.episode_deadline_s):
            return await _play(player, task, sibling, attempt, turns, ended)
    except EnvCallFailed as error:
        return ended("env_failed", error=str(error))
    except PolicyError as error:
        if not error.retryable:
            error = PolicyError(error.kind, f"{error.message} (a request of this run can never succeed)")
            return ended("infra_failed", error=f"fatal {error}")
        return ended("infra_failed", error=str(error))
    except TimeoutError:
        limit_s = player.settings.rollout.episode_deadline_s
        return ended("infra_failed", error=f"deadline_exceeded: the episode took more than {limit_s:g} s")


async def _play(
    player: Player, task: Task, sibling: int, attempt: int, turns: list[Turn], ended: Callable[..., Episode]
) -> Episode:
    settings, renderer = player.settings, player.renderer
    env = call_env(player.hooks, f"{task.env} make", player.make_env)
    try:
        history = make_history(settings.env.history, env.spec)
        system = env.spec.system_prompt if settings.env.system_prompt is None else settings.env.system_prompt
        observation = call_env(player.hooks, f"{task.env} reset, seed {task.seed}", env.reset, task.seed)
        messages = history.start(system, observation)
        prompt = renderer.prompt(messages)
        session = f"{task.index}-{sibling}"
        for turn_index in range(settings.env.max_turns):
            if len(prompt) + settings.sampling.max_tokens > settings.max_model_len:
                player.hooks.counts["truncated_context_full"] += 1
                return _out_of_room(task, turns, settings.max_model_len, ended)
            answer = await player.generate(
                GenerateRequest(
                    request_id=f"{session}-{turn_index}-{attempt}-{settings.min_weight_version}-{id(turns):x}",
                    token_ids=prompt,
                    sampling=replace(settings.sampling, seed=request_seed(settings, task, sibling, turn_index)),
                    session_id=session,
                    min_weight_version=settings.min_weight_version,
                    deadline_s=settings.rollout.request_deadline_s,
                )
            )
            text = renderer.decode(answer.token_ids)
            result = call_env(player.hooks, f"{task.env} step, seed {task.seed}", env.step, text)
            turns.append(
                Turn(
                    prompt_ids=prompt,
                    completion_ids=tuple(answer.token_ids),
                    logprobs=tuple(answer.logprobs),
                    weight_version=answer.weight_version,
                    reward=result.reward,
                    finish_reason=answer.finish_reason,
                    text=text,
                    parse_ok=bool(result.info.get("parse_ok", True)),
                    illegal=bool(result.info.get("illegal", False)),
                    prompt_text=observation.text,
                )
            )
            if result.terminated or result.truncated:
                end: EndReason = "completed" if result.terminated else "truncated"
                return ended(end, result.success, str(result.info.get("outcome", "")))
            observation = result.observation
            messages = history.next(text, observation)
            if history.append_only:
                sent = prompt + tuple(answer.token_ids)
                prompt = sent + renderer.continuation(answer.token_ids, messages[-1:])
            else:
                prompt = renderer.prompt(messages)
        player.hooks.counts["truncated_turn_cap"] += 1
        return ended("truncated")
    finally:
        env.close()


def _out_of_room(task: Task, turns: list[Turn], max_model_len: int, ended: Callable[..., Episode]) -> Episode:
    if turns:
        return ended("truncated", error=f"{CONTEXT_FULL}: the next prompt and answer exceed {max_model_len} tokens")
    raise PolicyError("too_large", f"the first prompt of {task.env} does not fit engine.max_model_len: raise it")


class EnvCallFailed(Exception):
    """An environment raised; says what was called."""


def call_env(hooks: Hooks, what: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Runs one environment call inline, visible to the watchdog while it runs. Raises EnvCallFailed."""
    key = id(arguments) ^ id(function)
    hooks.env_call[key] = (what, hooks.clock())
    try:
        return function(*arguments)
    except Exception as error:
        raise EnvCallFailed(f"{what}: {type(error).__name__}: {error}") from error
    finally:
        hooks.env_call.pop(key, None)
