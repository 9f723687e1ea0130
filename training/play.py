"""One episode in the terminal, turn by turn: the policy's, or a person's."""

from __future__ import annotations

from collections.abc import Callable

from envs.base import Env
from training.types import Episode


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
        if not result.info.get("parse_ok", True):
            show("(not understood)")
        if result.terminated or result.truncated:
            show(f"{observation.text}\nreturn {total:g}, {'success' if result.success else 'no success'}")
            return total


def transcript(episode: Episode) -> str:
    """What a policy saw, said and got, turn by turn."""
    lines = [f"{turn.prompt_text}\n  -> {turn.text}   reward {turn.reward:g}" for turn in episode.turns]
    result = episode.outcome or ("success" if episode.success else "no success")
    return "\n".join([*lines, f"return {episode.episode_return:g}, {result}"])
