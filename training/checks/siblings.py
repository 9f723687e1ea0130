"""Do siblings answer alike as often as their probabilities say? Pure, over all groups of a run.

Siblings see the same first prompt. Given the first one's answer, of probability p, each other sibling gives the same
answer with probability p, if the sampler draws independently and from the distribution that it reports. The sum of
(same - p) is then a martingale, and its size in standard deviations tells a sampler whose siblings share their noise,
or that draws from another distribution than it reports, without a forward pass of the learner.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from training.checks.alarms import Alarm
from training.types import EpisodeSummary

DEVIATIONS = 6.0  # once in 500 million looks by chance
ROUNDING = 0.02  # by how much a narrow type may bias the probabilities that are told


@dataclass(frozen=True)
class SiblingAnswers:
    """Pairs of siblings so far: how often the answers were the same, how often that was expected, the variance."""

    pairs: int = 0
    same: int = 0
    expected: float = 0.0
    variance: float = 0.0

    def with_groups(self, groups: Iterable[Sequence[EpisodeSummary]]) -> SiblingAnswers:
        """Also the siblings of these groups. Pairs whose weights or prompts differ are left out."""
        pairs, same, expected, variance = self.pairs, self.same, self.expected, self.variance
        for first, *others in groups:
            p = math.exp(min(0.0, first.first_logp))
            alike = [
                o for o in others if (o.first_version, o.first_prompt) == (first.first_version, first.first_prompt)
            ]
            pairs += len(alike)
            same += sum(other.first_answer == first.first_answer for other in alike)
            expected += p * len(alike)
            variance += p * (1 - p) * len(alike)
        return SiblingAnswers(pairs, same, expected, variance)

    @property
    def deviations(self) -> float:
        """How far the count is from its expectation, in standard deviations. A pair more or less than expected is never
        far: probabilities near 0 or 1 would make it so."""
        return (self.same - self.expected) / math.sqrt(self.variance + 1.0)

    def alarm(self) -> Alarm | None:
        off = abs(self.same - self.expected)
        if abs(self.deviations) <= DEVIATIONS or off <= ROUNDING * self.expected:
            return None
        return Alarm(
            "sibling answers",
            f"siblings gave the same first answer {self.same} times in {self.pairs} pairs, where the probabilities "
            f"that the sampler reports make it {self.expected:.1f} ({self.deviations:+.1f} standard deviations): it "
            "draws from another distribution than it reports, or siblings share its random numbers",
        )


def starts_alarm(first_prompts: Sequence[tuple[int, ...]], seed: int) -> Alarm | None:
    """`first_prompts`: that of each sibling of a group, which share the environment's seed."""
    kinds = len(set(first_prompts))
    if kinds <= 1:
        return None
    return Alarm(
        "sibling starts",
        f"{kinds} different first prompts in a group of {len(first_prompts)} siblings with seed {seed}: they play "
        "different situations, and their returns say nothing about their answers; reset(seed) must give the same start",
    )
