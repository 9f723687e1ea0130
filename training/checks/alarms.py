"""An alarm says which check found what. The catalogue of checks is here; what raises them is where the numbers are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from configs.base import UserError

# name -> (where it runs, what it compares)
CHECKS: dict[str, tuple[str, str]] = {
    "agreement": (
        "each update",
        "the learner's log-probabilities with the sampler's, for the same weights",
    ),
    "advantages": ("each batch", "every sequence's advantage with that of its own return among its own siblings"),
    "trained tokens": ("each update", "the tokens that had a gradient with those that the policy chose"),
    "unit gradient": (
        "each update",
        "a gradient of known size, after it was reduced over micro-batches and ranks, with 1",
    ),
    "first ratio": ("each batch", "the ratio that a loss clips with 1, before the first update of a batch"),
    "loss slope": ("each batch", "the direction in which the loss pushes a token with the sign of its advantage"),
    "kl slope": ("each batch", "the direction in which the KL term pushes a token with where the reference is"),
    "reference": ("each update", "the reference model's weights with those that it was loaded with"),
    "step count": ("each batch", "the step that the rollouts count with the one that the learner counts"),
    "optimizer state": ("each update", "the optimiser's own step count with the updates that were taken"),
    "finite numbers": (
        "each batch",
        "rewards, advantages, log-probabilities, gradients and weights with finite ones",
    ),
    "own forward": ("each start", "the learner's log-probabilities with those of the model's own forward pass"),
    "environment's books": ("each episode", "what is trained on with what the environment itself returned"),
    "cut short": ("each episode", "the return of an episode that a limit ended with that of a lost one"),
    "end of turn": ("each answer", "the last token of an answer that ended by itself with the end of a turn"),
    "sibling starts": ("each group", "the first prompts of a group's episodes with each other"),
    "sibling answers": ("each step", "how often siblings say the same with the probability that they report for it"),
    "control tokens": ("each prompt", "the control tokens of a prompt with those that its template writes by itself"),
    "image tokens": ("each batch", "the image tokens of a sequence with those that its images make"),
    "whole groups": ("each batch", "the episodes of a group with rollout.group_size"),
    "surprise": ("doctor", "the sampler's mean -log p with the entropy of the learner's distributions"),
    "doctor": ("doctor", "log-probabilities of whole episodes, and the prompts rendered once more"),
}


@dataclass(frozen=True)
class Alarm:
    """A check found what a healthy run cannot have. `check` is a key of CHECKS."""

    check: str
    message: str

    def __post_init__(self) -> None:
        if self.check not in CHECKS:
            raise ValueError(f"{self.check!r} is no check: {', '.join(CHECKS)}")

    def __str__(self) -> str:
        return f"check «{self.check}»: {self.message}"


class FaultFound(UserError):
    """A run's own check raised an alarm: what it would learn from is wrong. The message says what was found."""

    def __init__(self, alarm: Alarm) -> None:
        super().__init__(
            f"{alarm}. The run ends before it learns from it (on_alarm: warn lets it go on); docs/faults.md has the "
            "checks and what usually trips them"
        )
        self.alarm = alarm

    def __reduce__(self) -> Any:
        return type(self), (self.alarm,)
