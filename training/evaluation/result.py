"""What an evaluation found, with 95 % intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from training.tracking import intervals
from training.tracking.intervals import Estimate
from training.types import Episode


@dataclass(frozen=True)
class Evaluation:
    """What one policy did with one history strategy. `success_S` (0/1) and `returns_S` stand in the seeds' order."""

    name: str
    env: str
    history: str
    success: Estimate
    mean_return: Estimate
    illegal_rate: float
    outcomes: dict[str, int]  # win, draw, loss where it applies
    turns: float
    context_full: int  # episodes that ended because the chat outgrew engine.max_model_len
    success_S: tuple[float, ...]
    returns_S: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def summarize(name: str, env: str, history: str, episodes: Sequence[Episode]) -> Evaluation:
    success = [float(episode.success) for episode in episodes]
    returns = [episode.episode_return for episode in episodes]
    turns = [turn for episode in episodes for turn in episode.turns]
    outcomes = {kind: sum(e.outcome == kind for e in episodes) for kind in ("win", "draw", "loss")}
    return Evaluation(
        name=name,
        env=env,
        history=history,
        success=intervals.proportion(int(sum(success)), len(success)),
        mean_return=intervals.mean(returns),
        illegal_rate=sum(turn.illegal for turn in turns) / max(len(turns), 1),
        outcomes=outcomes if any(outcomes.values()) else {},
        turns=len(turns) / len(episodes),
        context_full=sum(episode.truncation == "context_full" for episode in episodes),
        success_S=tuple(success),
        returns_S=tuple(returns),
    )
