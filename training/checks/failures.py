"""What ends a run from the side of its rollouts."""

from __future__ import annotations

from configs.base import UserError
from training.checks.alarms import FaultFound


class RolloutFailed(UserError):
    """A group could not be completed; the message names the task, the reason and how often it was tried."""


class EnvironmentFailed(RolloutFailed):
    """The environment raised or hung again and again."""


class PolicyUnreachable(RolloutFailed):
    """No replica gave an answer, again and again."""


class FaultyRollout(FaultFound, RolloutFailed):
    """A check of the rollouts raised an alarm: what was played must not be learned from."""
