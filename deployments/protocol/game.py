"""Wire types of one decision of a MineRL player: the last frames in, one action with every key out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from deployments.protocol.act import Frame
from deployments.protocol.generate import remaining_s
from envs.pixels.game_actions import BUTTONS, CAMERA, GameAction, no_op

# What an action consists of belongs to the game, so the environments define it; this protocol offers it as its own.
__all__ = ["BUTTONS", "CAMERA", "GameAction", "PlayRequest", "PlayResult", "PlayStep", "no_op"]


@dataclass(frozen=True, slots=True)
class PlayStep:
    """One frame of a game, and the action that was taken on it; None for the frame that is to be decided."""

    frame: Frame
    action: GameAction | None = None


@dataclass(frozen=True, slots=True)
class PlayRequest:
    """One question to a player. `steps`: oldest first; the last is the current frame, and only the newest
    `max_history_length` are shown to the model. `step` is the client's own count and comes back as it is.

    `session_id`: whose frames these are, "" for a request that belongs to no session. `deadline_unix_s`: wall time
    after which nobody waits. `taken_unix_s`: when the last frame was taken, by the sender's clock.
    """

    request_id: str
    session_id: str
    deadline_unix_s: float
    task: str
    steps: Sequence[PlayStep]
    step: int = 0
    temperature: float = 0.7
    max_tokens: int = 512
    max_history_length: int = 5
    min_weight_version: int = 0
    taken_unix_s: float | None = None

    def remaining_s(self, now_unix_s: float) -> float:
        """Seconds until the deadline; zero or less when it has passed."""
        return remaining_s(self.deadline_unix_s, now_unix_s)


@dataclass(frozen=True, slots=True)
class PlayResult:
    """`action` has every key. `parse_ok` is False when the model's answer could not be read: then `action` is the no-op
    and `reasoning` says what was wrong. `observation_id`: request_id of the frame that was really looked at, which is
    a newer one of the same session when several had queued up."""

    request_id: str
    action: GameAction
    reasoning: str
    step: int
    weight_version: int
    parse_ok: bool = True
    observation_id: str = ""
    queue_ms: float = 0.0
    infer_ms: float = 0.0
    total_ms: float = 0.0
    observation_age_ms: float = 0.0
