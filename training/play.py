"""One episode in the terminal, turn by turn: the policy's, or a person's."""

from __future__ import annotations

from collections.abc import Callable

from envs.base import Env


def play_by_hand(env: Env, seed: int, ask: Callable[[str], str], show: Callable[[str], None]) -> float:
    """A person plays; returns the return. `ask` raises EOFError to stop."""
    observation = env.reset(seed)
    show(env.spec.system_prompt)
    total = 0.0
    while True:
        show(observation.text)
        try:
            result = env.step(ask("your answer: "))
        except EOFError:
            show("stopped")
            return total
        total += result.reward
        observation = result.observation
        if not result.info["parse_ok"]:
            show("(not understood)")
        if result.terminated or result.truncated:
            show(f"{observation.text}\nreturn {total:g}, {'success' if result.success else 'no success'}")
            return total
