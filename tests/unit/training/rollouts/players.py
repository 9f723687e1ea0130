"""Players of TicTacToe with a policy of the test's choice."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Any

from configs.rollouts import EnvConfig, RolloutConfig
from deployments.protocol.generate import GenerateRequest, GenerateResult, Sampling
from envs import registry
from envs.base import Env
from training.rendering.renderer import ChatRenderer
from training.rollouts.player import Player, PlaySettings
from training.types import Task

TASK = Task("tictactoe", 5, 0)


def policy(
    renderer: ChatRenderer,
    fail: Callable[[int], Exception | None] = lambda call: None,
    logprob: Callable[[int], float] = lambda call: -1.0,
) -> Any:
    """Plays random cells; `fail(n)` may raise on the n-th call, `logprob(n)` is that of each of its tokens."""
    rng, calls = random.Random(0), iter(range(10**6))

    async def generate(request: GenerateRequest) -> GenerateResult:
        call = next(calls)
        error = fail(call)
        if error is not None:
            raise error
        ids = [*renderer.answer(f"<move>{rng.randrange(1, 10)}</move>")]
        return GenerateResult(request.request_id, ids, [logprob(call)] * len(ids), request.min_weight_version, "stop")

    return generate


def player(
    renderer: ChatRenderer,
    generate: Callable[[GenerateRequest], Awaitable[GenerateResult]] | None = None,
    make: Callable[[], Env] = lambda: registry.make("tictactoe"),
    history: str = "none",
    max_model_len: int = 512,
    **env: Any,
) -> Player:
    blocking = env.pop("blocking", False)
    settings = PlaySettings(
        env=EnvConfig(**{"name": "tictactoe", "system_prompt": "", "history": history} | env),
        rollout=RolloutConfig(max_retries=3, retry_backoff_s=0.0),
        sampling=Sampling(max_tokens=6),
        max_model_len=max_model_len,
        seeded=True,
    )
    return Player(make, generate or policy(renderer), renderer, settings, blocking=blocking)
