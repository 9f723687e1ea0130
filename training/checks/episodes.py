"""Is an episode what its environment says it was? Pure."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from envs.base import StepResult
from training.checks.alarms import Alarm
from training.types import Episode


@dataclass
class Books:
    """What an environment returned in one episode, noted where it was called: an account that nothing else writes."""

    steps: int = 0
    reward: float = 0.0
    terminated: bool = False
    truncated: bool = False
    parts: dict[str, float] = field(default_factory=dict)  # by name, before they were weighted
    unnamed: float = 0.0  # rewards of the steps that named no parts
    judged: float = 0.0  # what a judge's verdict was paid, where there is one

    def note(self, result: StepResult) -> None:
        self.steps += 1
        self.note_reply(result)

    def note_reply(self, result: StepResult) -> None:
        """Of the other player's move in a game for two: it belongs to the step before."""
        self.reward += float(result.reward)
        self.terminated, self.truncated = result.terminated, result.truncated
        if "rewards" not in result.info:
            self.unnamed += float(result.reward)
            return
        for name, value in result.info["rewards"].items():
            self.parts[name] = self.parts.get(name, 0.0) + float(value)

    def paid(self, weights: Mapping[str, float] | None) -> float:
        """The return: of the environment's own rewards, or with the named parts weighted like this; and the verdict."""
        if weights is None:
            return self.reward + self.judged
        return self.judged + self.unnamed + sum(weights[name] * value for name, value in self.parts.items())


def books_alarm(
    episode: Episode,
    books: Books,
    failure_return: float | None,
    as_played: bool,
    weights: Mapping[str, float] | None = None,
) -> Alarm | None:
    """For a finished episode. `failure_return`: what losing pays, where the environment says so; `as_played`: whether
    an episode that a limit of ours ended keeps what it had (env.cut_short); `weights`: those of the run for the named
    parts of the reward, where it has its own."""
    gained = sum(turn.reward for turn in episode.turns)
    if not math.isfinite(gained):
        return Alarm("finite numbers", f"the rewards of {_which(episode)} sum up to {gained}")
    if len(episode.turns) != books.steps:
        return _differs(episode, f"{len(episode.turns)} turns", f"{books.steps} steps")
    if episode.end == "completed" and not books.terminated:
        return _differs(episode, "completed", "not over")
    if episode.truncation == "environment" and not books.truncated:
        return _differs(episode, "truncated by the environment", "not truncated")
    ours = episode.truncation in ("turn_cap", "context_full")
    paid = books.paid(weights)
    if gained > paid + _slack(paid) or (not ours and gained < paid - _slack(paid)):
        return _differs(episode, f"a return of {gained:g}", f"rewards of {paid:g} in all")
    if ours and not as_played and failure_return is not None and gained > failure_return + _slack(failure_return):
        return Alarm(
            "cut short",
            f"{_which(episode)} was ended by {episode.truncation} with a return of {gained:g}, more than a lost one "
            f"has ({failure_return:g}): a policy would learn to fill its turns or its context",
        )
    return None


def ends_alarm(episode: Episode, ends: Collection[int]) -> Alarm | None:
    """`ends`: the tokens that may end an answer by themselves."""
    for number, turn in enumerate(episode.turns):
        if turn.finish_reason == "stop" and turn.completion_ids[-1] not in ends:
            return Alarm(
                "end of turn",
                f"turn {number} of {_which(episode)} ended by itself, but its last token is {turn.completion_ids[-1]}, "
                "which ends no turn: the policy would never learn to stop",
            )
    return None


def _differs(episode: Episode, told: str, noted: str) -> Alarm:
    return Alarm(
        "environment's books",
        f"{_which(episode)} is told as {told}, where the environment itself says {noted}: it would be trained on what "
        "did not happen",
    )


def _which(episode: Episode) -> str:
    return f"the episode of {episode.task.env} seed {episode.task.seed}, sibling {episode.sibling},"


def _slack(value: float) -> float:
    return 1e-6 * max(1.0, abs(value))
