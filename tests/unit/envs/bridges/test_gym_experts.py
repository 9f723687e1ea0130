"""The hand-written policies are good enough for a warm start."""

from __future__ import annotations

import random

from envs import registry


def test_the_cart_pole_controller_succeeds_in_most_episodes() -> None:
    env, rng = registry.make("gym:CartPole-v1", expert="envs.bridges.gym_experts:cart_pole"), random.Random(0)
    successes = 0
    for seed in range(10):
        env.reset(seed)
        over = False
        while not over:
            result = env.step(env.expert_action(rng))
            over = result.terminated or result.truncated
        successes += result.success

    assert successes >= 8
