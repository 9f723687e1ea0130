"""One episode in the terminal, turn by turn as it happens: a person's, or the policy's."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from envs.base import Env, Observation, StepResult
from training.evaluation.frames import Picture, save_gif

Ask = Callable[[str], str]  # shows a prompt, returns a line; raises EOFError or KeyboardInterrupt to stop


Show = Callable[[str], None]


@dataclass
class Watched(Env):
    """An environment that shows each turn while it is played; with `pause` it waits for it between the turns. What the
    policy sees as a picture is drawn with `draw`; `frames` are pictures of the whole state, where there are any.

    Whoever plays it (a rollout, a person) does what it always does: nothing is replayed, nothing is staged.
    """

    game: Env
    show: Show
    pause: Callable[[], object] | None = None
    draw: Callable[[Picture], str] | None = None
    frames: list[Picture] = field(default_factory=list)
    turns: int = 0
    total: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self.spec = self.game.spec

    def reset(self, seed: int) -> Observation:
        observation = self.game.reset(seed)
        self.show(self._seen(observation))
        return observation

    def step(self, action: str) -> StepResult:
        result = self.game.step(action)
        self.turns += 1
        self.total += result.reward
        remark = "" if not result.info.get("illegal") else "  (not allowed)" if result.info["parse_ok"] else UNREADABLE
        seen = self._seen(result.observation)
        self.show(f"turn {self.turns}: {action}   reward {result.reward:g}{remark}\n\n{seen}")
        if self.pause is not None and not (result.terminated or result.truncated):
            self.pause()
        return result

    def _seen(self, observation: Observation) -> str:
        state = self.game.render()
        if state is not None:
            self.frames.append(np.array(state))
        if observation.image is None or self.draw is None:
            return observation.text
        return f"{self.draw(observation.image)}\n{observation.text}"

    def expert_action(self, rng: random.Random, noise: float = 0.0, illegal_noise: float = 0.0) -> str:
        return self.game.expert_action(rng, noise, illegal_noise)

    def close(self) -> None:
        self.game.close()


UNREADABLE = "  (not understood)"


def play_by_hand(
    env: Env, seed: int, ask: Ask, show: Show, draw: Callable[[Picture], str] | None = None, gif: Path | None = None
) -> float:
    """A person plays; returns the return. What cannot be read costs a turn, as it costs the policy one; an empty line
    is asked again. End of input or Ctrl-C stops. `gif`: where pictures of the turns are written to."""
    watched = Watched(env, show, draw=draw)
    show(f"{env.spec.system_prompt}\nAnswers match {env.spec.action_regex}; Ctrl-D stops.\n")
    watched.reset(seed)
    try:
        while True:
            result = watched.step(_line(ask))
            if result.terminated or result.truncated:
                ended = result.info.get("outcome", "success" if result.success else "no success")
                show(f"\nreturn {watched.total:g} after {watched.turns} turns, {ended}")
                break
    except (EOFError, KeyboardInterrupt):
        show(f"\nstopped after {watched.turns} turns, return {watched.total:g}")
    finally:
        env.close()
    if gif is not None:
        save_gif(watched.frames, gif)
    return watched.total


def _line(ask: Ask) -> str:
    while True:
        answer = ask("your answer: ").strip()
        if answer:
            return answer


def enter(ask: Ask) -> Callable[[], None]:
    """Waits for Enter between two turns. The end of input stops like Ctrl-C: an exception that no rollout takes for a
    failure of the environment."""

    def wait() -> None:
        try:
            ask("Enter for the next turn, Ctrl-C stops ")
        except EOFError:
            raise KeyboardInterrupt from None

    return wait
