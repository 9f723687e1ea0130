"""What happened to answers, counted by policy; the ingress exports it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from deployments.protocol.act import Intervention


@dataclass(slots=True)
class Counts:
    """All counters only grow; their keys are (policy, what).

    answers: "act" or "play". unreadable: answers of a model that could not be read, "act" or "play".
    interventions: actions that were changed on their way out, by what was done. superseded: observations that were
    answered from a newer one of their session, "act" or "play". failures: requests that failed, by the kind of error.
    """

    answers: Counter[tuple[str, str]] = field(default_factory=Counter)
    unreadable: Counter[tuple[str, str]] = field(default_factory=Counter)
    interventions: Counter[tuple[str, str]] = field(default_factory=Counter)
    superseded: Counter[tuple[str, str]] = field(default_factory=Counter)
    failures: Counter[tuple[str, str]] = field(default_factory=Counter)

    def intervened(self, policy: str, interventions: tuple[Intervention, ...]) -> None:
        self.interventions.update((policy, what) for what in interventions)

    def snapshot(self) -> Mapping[str, Mapping[tuple[str, str], int]]:
        """Counter name -> (policy, what) -> how often, as it is now."""
        return {
            "answers": dict(self.answers),
            "unreadable": dict(self.unreadable),
            "interventions": dict(self.interventions),
            "superseded": dict(self.superseded),
            "failures": dict(self.failures),
        }
