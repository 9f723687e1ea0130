"""How often the scripted expert of an environment succeeds."""

from __future__ import annotations

import random

from envs.base import Env


def success(env: Env, noise: float, episodes: int) -> float:
    """Share of the first `episodes` seeds; `noise`: share of its actions that are random."""
    rng, won = random.Random(0), 0
    for seed in range(episodes):
        env.reset(seed)
        while True:
            result = env.step(env.expert_action(rng, noise))
            if result.terminated or result.truncated:
                won += result.success
                break
    return won / episodes
